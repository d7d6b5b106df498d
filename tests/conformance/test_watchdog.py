"""The fake watchdog of the guard's tests keeps what a real one keeps (``make vm-test`` asks softdog the same)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.conformance.watchdog import CLAIMS, Open
from tests.unit.guard.fakes import FakeWatchdog


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_the_fake_conforms(claim: Callable[[Open], None]) -> None:
    claim(FakeWatchdog(lambda: 0.0).open)
