"""A22, B12: what a node runs before any role."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hasys.config import CommonStart
from hasys.reconciler import commonstart
from hasys.resources import scripts
from hasys.resources.cgroup import Cgroup
from hasys.resources.output import Outputs
from hasys.resources.process import Command
from hasys.resources.records import Records
from hasys.resources.scripts import Ended

pytestmark = pytest.mark.anyio


class Stage:
    """Commands that end as told, without processes."""

    def __init__(self, directory: Path, codes: list[int | None]) -> None:
        self.directory = directory
        self.codes = codes
        self.ran: list[Command] = []
        self.causes: list[str] = []

    async def run(self, command: Command, cgroup: Cgroup, pipe: Path, timeout: float, *, keep: bool = False) -> Ended:
        assert keep
        self.ran.append(command)
        return Ended(self.codes.pop(0), timeout)

    async def start(self, **changes: object) -> float:
        """The virtual seconds until roles may begin."""
        outputs = Outputs(self.directory / "o")
        before = anyio.current_time()
        wanted = CommonStart(("prepare",), **changes)  # type: ignore[arg-type]
        records = Records(self.directory / "r")
        await commonstart.common_start(wanted, Cgroup(self.directory), records, outputs, self.causes.append)
        outputs.forget_group(commonstart.PLACE)
        return anyio.current_time() - before


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path, [])
    monkeypatch.setattr(scripts, "run", made.run)
    return made


async def test_it_runs_once_per_boot_and_roles_begin_after_the_wait(stage: Stage) -> None:
    stage.codes = [0]
    assert await stage.start(wait=7.0) == pytest.approx(7.0)
    assert await stage.start(wait=7.0) == 0.0  # a new agent of the same boot
    assert [command.argv for command in stage.ran] == [("prepare",)]
    assert stage.causes == []


async def test_a_failed_one_is_tried_again_and_holds_every_role_back(stage: Stage) -> None:
    stage.codes = [1, None, 0]
    assert await stage.start(timeout=3.0) == pytest.approx(2 * commonstart.AGAIN)
    assert stage.causes == ["exit status 1", "did not end within 3 s"]


async def test_with_continue_roles_begin_though_it_failed(stage: Stage) -> None:
    stage.codes = [1]
    assert await stage.start(go_on=True) == 0.0
    assert stage.causes == ["exit status 1"]
