"""The stand-in of DRBD keeps what a real one keeps (``make vm-test`` asks the one of a guest's kernel the same)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from hasys.model.drbd import Volume
from hasys.resources.drbd import Drbd
from tests.conformance.drbd import CLAIMS, Rig
from tests.lab.fake_drbd import FakeDrbd


class Standing:
    """The stand-in, without its peer."""

    resource = FakeDrbd.resource

    def __init__(self, fake: FakeDrbd) -> None:
        self._fake = fake
        self.adm = fake.adm

    def volume(self) -> Volume:
        return anyio.run(Drbd(self._fake.kernel).look, self.resource, self._fake.device)

    def renew(self) -> None:
        self._fake.set(state=self._fake.searching, peer_role="Unknown", peer_disk="DUnknown")

    @contextmanager
    def hold(self) -> Iterator[None]:
        self._fake.set(held=True)
        yield
        self._fake.set(held=False)


@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_the_stand_in_conforms(claim: Callable[[Rig], None], version: int, tmp_path: Path) -> None:
    rig = Standing(FakeDrbd(tmp_path / "drbd", version))
    rig.renew()
    claim(rig)
