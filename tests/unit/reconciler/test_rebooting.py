"""A18: the agent obeys the leader's request to reboot once, and only in the boot that it speaks of."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from hasys.config import RebootCommand
from hasys.reconciler.cache import Cache
from hasys.reconciler.ports import Batch
from hasys.reconciler.rebooting import Rebooting
from hasys.resources.records import Records
from hasys.v1 import objects_pb2 as pb

pytestmark = pytest.mark.anyio
COMMAND = RebootCommand(("systemctl", "reboot"))


class Stage:
    """A node whose Node object says what the test wants; ``ran`` and ``failed`` are what followed."""

    def __init__(self, directory: Path, wanted: RebootCommand | None = COMMAND, outcome: str = "") -> None:
        self.cache = Cache()
        self.records = Records(directory)
        self.ran: list[RebootCommand] = []
        self.failed: list[str] = []
        self._outcome = outcome
        self.rebooting = Rebooting("n1", wanted, self.cache, self.records, (self._run, self.failed.append))

    async def _run(self, command: RebootCommand) -> str:
        self.ran.append(command)
        return self._outcome

    async def hear(self, boot: str, *, due: bool = True, epoch: int = 3) -> None:
        node = pb.Object()
        node.node.metadata.name = "n1"
        node.node.status.reboot.CopyFrom(pb.NodeReboot(boot_id=boot, group="web", epoch=epoch, due=due))
        self.cache.take(Batch(changes=[(node, False)], synced=True))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.rebooting.run)
            self.rebooting.look()
            await anyio.sleep(1)
            tasks.cancel_scope.cancel()


async def test_a_due_request_of_this_boot_is_obeyed_once(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    boot = f"{stage.records.boot}.17"
    await stage.hear(boot, due=False)
    assert stage.ran == []
    await stage.hear(boot)
    await stage.hear(boot)
    assert stage.ran == [COMMAND]
    await stage.hear(boot, epoch=5)  # the next failover
    assert (stage.ran, stage.failed) == ([COMMAND, COMMAND], [])


async def test_a_machine_that_came_back_leaves_its_old_request_alone(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    await stage.hear("another-boot.17")
    assert stage.ran == []


async def test_a_new_agent_of_the_same_boot_does_not_obey_again(tmp_path: Path) -> None:
    first, second = Stage(tmp_path), Stage(tmp_path)
    boot = f"{first.records.boot}.17"
    await first.hear(boot)
    await second.hear(boot)
    assert (first.ran, second.ran) == ([COMMAND], [])


@pytest.mark.parametrize(
    ("wanted", "outcome", "said"),
    [(None, "", "node.yaml names no reboot command"), (COMMAND, "exit status 1", "exit status 1")],
)
async def test_what_keeps_a_node_from_rebooting_is_told(
    tmp_path: Path, wanted: RebootCommand | None, outcome: str, said: str
) -> None:
    stage = Stage(tmp_path, wanted, outcome)
    await stage.hear(f"{stage.records.boot}.17")
    assert stage.failed == [said]
