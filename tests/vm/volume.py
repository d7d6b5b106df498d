"""The driver of a ReplicatedVolume in a guest, word by word: ``python -m tests.vm.volume start | stop``.

Prints one line of JSON. What ``start`` mounted stays mounted, as when an agent is killed; ``stop`` is another agent's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint

from hasys.resources.cgroup import Cgroup, base_of
from hasys.resources.drbd import Drbd
from hasys.resources.mounts import KernelMounts
from hasys.resources.output import Outputs
from hasys.resources.port import Place, State, Surroundings
from hasys.resources.records import Records
from hasys.resources.replicated_volume import ReplicatedVolume
from hasys.resources.service import Home
from hasys.v1 import objects_pb2 as pb

RESOURCE, DEVICE, POINT = "r0", "/dev/drbd0", "/srv/data"
PATIENCE = 240.0
"""Seconds for a start, in a guest without KVM."""


def driver() -> ReplicatedVolume:
    spec = pb.ReplicatedVolumeSpec(drbd_resource=RESOURCE, device=DEVICE, mount_point=POINT)
    spec.promote_timeout.FromSeconds(3)
    place, base, run = Place("guest", "store", "data", 1), Cgroup(base_of("vm-volume")), Path("/run/vm-volume")
    base.create()
    home = Home(
        place, Cgroup(base.path / "groups/store/data"), Cgroup(base.path / "agent/store.data"),
        Records(run / "records"), Outputs(run / "output"),
    )  # fmt: skip
    around = Surroundings(place, checkpoint, lambda: None, lambda reason, cause: None)
    return ReplicatedVolume(around, spec, home, KernelMounts(), Drbd())


async def start(volume: ReplicatedVolume) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(volume.run)
        with anyio.fail_after(PATIENCE):
            while volume.condition.state not in (State.RUNNING, State.FAILED):  # noqa: ASYNC110  nobody tells
                await anyio.sleep(0.1)
        tasks.cancel_scope.cancel()


async def main(verb: str) -> None:
    volume = driver()
    match verb:
        case "start":
            await start(volume)
        case "stop":
            assert await volume.adopt()
            await volume.stop(force=False)
    c = volume.condition
    print(json.dumps({"state": c.state.value, "message": c.message}))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
