"""Fixtures of the tests on a real kernel. They need root; without it they are skipped, saying so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hasys.lab.lab import Lab, missing


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab (switch, client, observer) of this test's own."""
    lack = missing()
    if lack:
        pytest.skip(lack)
    with Lab() as made:
        yield made
