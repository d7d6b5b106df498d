"""Random faults and commands; after every step the world's invariants hold, and once all is mended every group runs.

A failing seed replays exactly: ``pytest -k 'seed17'``.
"""

from __future__ import annotations

import random

import pytest

from hasys.model.view import Phase
from tests.scenarios.language import Story

SEEDS = range(24)
NODES = ("n1", "n2", "n3")
FAULTS = (
    "power-off {n}", "power-on {n}", "silence {n}", "deafen {n}", "heal {n}", "kill-agent {n}", "start-agent {n}",
    "break web-app on {n}: exit code 1", "stick web-app on {n}", "unstick web-app on {n}", "lose leader",
    "do switchover web", "do switchover web to {n}", "do failover web to {n}", "do drain on {n}",
    "do drain on {n} because shutdown", "do undrain on {n}", "do pause web", "do resume web", "do retry web",
    "do resolve web on {n} as active", "do resolve web on {n} as standby", "lose quorum", "regain quorum",
    "fill disk of {n}", "free disk of {n}", "gate shop on {n} closed: gate replica: 3", "gate shop on {n} open",
    "freeze {n}",
)  # fmt: skip


def history(seed: int) -> Story:
    """Twenty seconds of trouble."""
    dice = random.Random(seed)
    story = Story()
    story.command("cluster n1 n2 n3 w:Witness")
    for node in NODES:
        story.command(f"watchdog {node} 4s")
    story.command("group web n1:100 n2:50 n3:10 stop=3s with web-ip web-app extra~")
    story.command("group db n2:100 n1:50 with db-app")
    story.command("group shop n1:100 n3:50 limit=2/10s/15s failback=5s reboots with shop-ip")
    story.command("group empty n3:100 n1:50")
    for _ in range(20):
        story.command(f"advance {dice.choice(['50ms', '300ms', '1s', '3s'])}")
        line = dice.choice(FAULTS).format(n=dice.choice(NODES))
        if line.split()[0] in ("power-off", "power-on", "freeze", "kill-agent", "start-agent"):
            _power(story, line)
        elif line.startswith("do ") and not story.world.leading:
            continue
        else:
            story.command(line)
    return story


def _power(story: Story, line: str) -> None:
    """A machine that is off has no agent to kill; one that is on cannot be switched on."""
    machine = story.world.machines[line.split()[1]]
    if machine.up != line.startswith("power-on"):
        story.command(line)


def mend(story: Story) -> None:
    """Everything is repaired, every switch is back."""
    world = story.world
    for machine in world.machines.values():
        machine.silent = machine.deaf = False
        machine.full = False
        machine.broken.clear()
        machine.stuck.clear()
        if not machine.up or machine.reset_at is not None:
            world.power_off(machine.name)
            world.boot(machine.name)
        machine.agent, machine.agent_gone_at = True, None
    if not world.quorum:
        world.set_quorum(True)
    world.advance(3)
    undrained = [f"do undrain on {n}" for n in NODES]
    for line in (*undrained, "do resume web", "gate shop on n1 open", "gate shop on n3 open"):
        story.command(line)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS, ids=[f"seed{s}" for s in SEEDS])
def test_every_group_runs_again_once_all_is_mended(seed: int) -> None:
    story = history(seed)
    mend(story)
    story.world.advance(90)

    phases = {name: (group.phase, group.reason) for name, group in story.world.groups.items()}
    assert phases == dict.fromkeys(phases, (Phase.RUNNING, "")), "\n".join(story.world.lines[-60:])
    assert story.world.operations == {}, "every operation has an end"
    before = {name: group.assignment.previous_node for name, group in story.world.groups.items()}
    assert before == dict.fromkeys(before, ""), "who is out of a group is forgotten: a deletion waits for that"


def test_a_history_replays_exactly() -> None:
    assert history(3).world.lines == history(3).world.lines
