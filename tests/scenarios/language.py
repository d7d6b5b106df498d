"""The scenario language: commands, a line of dashes, and under it everything that happened.

    # what this shows
    cluster n1 n2 w:Witness
    group web n1:100 n2:50 with web-ip web-app
    advance 1s
    ----
    0.09  event NodeReady: n1 is ready
    ...

Commands, one a line: ``cluster``, ``group``, ``nodes of GROUP NODE:PRIO...``, ``was GROUP NODE@EPOCH``,
``delete GROUP``, ``cut|join NODE at ADDRESS``, ``advance TIME``,
``power-off|power-on|silence|deafen|heal|freeze NODE``, ``watchdog NODE TIME``, ``kill-agent|start-agent NODE``,
``disarm NODE``, ``network NODE link|silent|gateway|unsteady|well [asked MEMBER...] [gateway]`` (of eth0),
``break RESOURCE on NODE: WORDS``, ``hang|mend RESOURCE on NODE``, ``stick|unstick RESOURCE on NODE``,
``fill|free disk of NODE``, ``gate GROUP on NODE closed: WORDS``, ``gate GROUP on NODE open``,
``lose leader|quorum``, ``regain quorum``, ``do OPERATION [GROUP] [to|on NODE] [as ROLE] [step RESOURCE]
[because WORDS]``, ``show``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hasys.model.networks import Fault, LostNetworks, Trouble
from hasys.model.view import (
    Assignment,
    Candidate,
    GroupInfo,
    Limit,
    OperationInfo,
    OperationType,
    Phase,
    ResourceInfo,
    Role,
)
from hasys.placement.roles import role_of
from hasys.placement.standing import standing
from tests.scenarios.world import World

DASHES = "----"
_SAID = {
    "link": "eth0 has no carrier",
    "silent": "nobody answers on eth0",
    "gateway": "the gateway does not answer on eth0",
    "unsteady": "eth0 came back a moment ago",
}
OPERATIONS = {t.value.lower(): t for t in OperationType} | {"fence-confirm": OperationType.FENCE_CONFIRM}


@dataclass
class Block:
    """Commands with comments as written, and the narrative under them."""

    commands: list[str]
    narrative: list[str]


def parse(text: str) -> list[Block]:
    """Blocks are separated by empty lines."""
    blocks = []
    for chunk in text.strip().split("\n\n"):
        lines = chunk.split("\n")
        cut = lines.index(DASHES) if DASHES in lines else len(lines)
        blocks.append(Block(lines[:cut], lines[cut + 1 :]))
    return blocks


def render(blocks: list[Block]) -> str:
    return "\n\n".join("\n".join([*b.commands, DASHES, *b.narrative]) for b in blocks) + "\n"


def play(path: Path) -> str:
    """The file as it would be with what really happens."""
    blocks = parse(path.read_text())
    story = Story()
    for block in blocks:
        for line in block.commands:
            if line and not line.startswith("#"):
                story.command(line)
        block.narrative = story.take()
    return render(blocks)


class Story:
    """One world and the commands on it."""

    def __init__(self) -> None:
        self._world: World | None = None
        self._serial = 0

    @property
    def world(self) -> World:
        assert self._world is not None, "begin with: cluster n1 n2 w:Witness"
        return self._world

    def take(self) -> list[str]:
        lines, self.world.lines = self.world.lines, []
        return lines

    def command(self, line: str) -> None:
        words = line.split()
        handler: Callable[[list[str], str], None] = getattr(self, "_" + words[0].replace("-", "_"))
        handler(words[1:], line)

    # ------------------------------------------------------------ what there is
    def _cluster(self, words: list[str], line: str) -> None:
        members = {}
        for word in words:
            name, _, role = word.partition(":")
            if word != "by-tokens":
                members[name] = Role(role or "Voter")
        self._world = World(members, by_tokens="by-tokens" in words)

    def _group(self, words: list[str], line: str) -> None:
        name = words[0]
        cut = words.index("with") if "with" in words else len(words)
        candidates = []
        for word in words[1:cut]:
            if ":" in word:
                node, _, priority = word.partition(":")
                candidates.append(Candidate(node, int(priority)))
        stops = [w for w in words[1:cut] if w.startswith("stop=")]
        limits = [w[6:].split("/") for w in words[1:cut] if w.startswith("limit=")]
        backs = [w for w in words[1:cut] if w.startswith("failback=")]
        self.world.groups[name] = GroupInfo(
            name,
            tuple(candidates),
            manual="manual" in words,
            interfaces={c.node: frozenset({"eth0"}) for c in candidates},
            lost_networks=LostNetworks.NEVER if "net=Never" in words else LostNetworks.ANY,
            needs_gateway="gateway=Ignore" not in words,
            stop_timeout=seconds(stops[0][5:]) if stops else 60.0,
            limit=Limit(int(limits[0][0]), seconds(limits[0][1]), seconds(limits[0][2])) if limits else None,
            failback=seconds(backs[0][9:]) if backs else None,
            reboots="reboots" in words,
            resources=tuple(
                ResourceInfo("Application", word.rstrip("~"), vital=not word.endswith("~")) for word in words[cut + 1 :]
            ),
        )
        self.world.wake()

    def _nodes(self, words: list[str], line: str) -> None:
        pairs = [word.partition(":") for word in words[2:]]
        candidates = tuple(Candidate(node, int(priority)) for node, _, priority in pairs)
        self.world.groups[words[1]] = replace(self.world.groups[words[1]], candidates=candidates)
        self.world.wake()

    def _was(self, words: list[str], line: str) -> None:
        node, _, epoch = words[1].partition("@")
        group = self.world.groups[words[0]]
        self.world.groups[words[0]] = replace(
            group, assignment=Assignment(node, int(epoch), cause="before"), phase=Phase.RUNNING
        )

    def _delete(self, words: list[str], line: str) -> None:
        self.world.groups[words[0]] = replace(self.world.groups[words[0]], deleting=True)
        self.world.wake()

    # ------------------------------------------------------------ time and faults
    def _advance(self, words: list[str], line: str) -> None:
        self.world.advance(seconds(words[0]))

    def _power_off(self, words: list[str], line: str) -> None:
        self.world.power_off(words[0])

    def _power_on(self, words: list[str], line: str) -> None:
        self.world.boot(words[0])

    def _freeze(self, words: list[str], line: str) -> None:
        self.world.freeze(words[0])

    def _watchdog(self, words: list[str], line: str) -> None:
        self.world.machines[words[0]].watchdog = seconds(words[1])

    def _silence(self, words: list[str], line: str) -> None:
        self.world.machines[words[0]].silent = True

    def _deafen(self, words: list[str], line: str) -> None:
        self.world.machines[words[0]].deaf = True

    def _cut(self, words: list[str], line: str) -> None:
        self._reach(words[0], lambda cut: (*cut, words[2]))

    def _join(self, words: list[str], line: str) -> None:
        self._reach(words[0], lambda cut: tuple(address for address in cut if address != words[2]))

    def _reach(self, node: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]) -> None:
        """The leader's store sees an address of the node go, or come back."""
        info = self.world.nodes[node]
        self.world.nodes[node] = replace(info, cut=change(info.cut or ()))
        self.world.wake()

    def _heal(self, words: list[str], line: str) -> None:
        machine = self.world.machines[words[0]]
        machine.silent = machine.deaf = False

    def _kill_agent(self, words: list[str], line: str) -> None:
        machine = self.world.machines[words[0]]
        machine.agent, machine.agent_gone_at = False, self.world.now

    def _start_agent(self, words: list[str], line: str) -> None:
        machine = self.world.machines[words[0]]
        machine.agent, machine.agent_gone_at = True, None

    def _disarm(self, words: list[str], line: str) -> None:
        self.world.machines[words[0]].armed = False

    def _network(self, words: list[str], line: str) -> None:
        """What the agent finds out about eth0; the guard tells it at once."""
        machine, kind = self.world.machines[words[0]], words[1]
        machine.networks.clear()
        if kind != "well":
            asked = tuple(words[3:]) if "asked" in words else ()
            members = tuple(name for name in asked if name != "gateway")
            machine.networks["eth0"] = Trouble("eth0", Fault[kind.upper()], _SAID[kind], members, "gateway" in asked)
        if machine.keeper is not None:
            machine.keeper.at_once(self.world.now)

    def _break(self, words: list[str], line: str) -> None:
        self.world.machines[words[2].rstrip(":")].broken[words[0]] = line.partition(": ")[2]

    def _hang(self, words: list[str], line: str) -> None:
        self.world.machines[words[2]].hanging.add(words[0])

    def _mend(self, words: list[str], line: str) -> None:
        machine = self.world.machines[words[2]]
        machine.broken.pop(words[0], None)
        machine.hanging.discard(words[0])

    def _stick(self, words: list[str], line: str) -> None:
        self.world.machines[words[2]].stuck.add(words[0])

    def _unstick(self, words: list[str], line: str) -> None:
        self.world.machines[words[2]].stuck.discard(words[0])

    def _fill(self, words: list[str], line: str) -> None:
        self.world.machines[words[2]].full = True

    def _free(self, words: list[str], line: str) -> None:
        self.world.machines[words[2]].full = False

    def _gate(self, words: list[str], line: str) -> None:
        """What a monitor of the group says about a node."""
        group, node = self.world.groups[words[0]], words[2]
        closed = {n: why for n, why in group.closed.items() if n != node}
        if words[3] != "open":
            closed[node] = line.partition(": ")[2]
        self.world.groups[words[0]] = replace(group, closed=closed)
        self.world.wake()

    def _lose(self, words: list[str], line: str) -> None:
        if words == ["leader"]:
            self.world.lose_leader()
        else:
            self.world.set_quorum(False)

    def _regain(self, words: list[str], line: str) -> None:
        self.world.set_quorum(True)

    # ------------------------------------------------------------ operators
    def _do(self, words: list[str], line: str) -> None:
        self._serial += 1
        head, _, reason = line.partition(" because ")
        words = head.split()[1:]
        parts = {word: words[i + 1] for i, word in enumerate(words) if word in ("to", "on", "as", "step")}
        operation = OPERATIONS[words[0]]
        plain = words[1] if len(words) > 1 and words[1] not in ("to", "on", "as", "step") else ""
        self.world.operate(
            OperationInfo(
                name=f"{words[0]}-{self._serial}",
                type=operation,
                group=plain,
                node=parts.get("to", parts.get("on", "")),
                step=parts.get("step", ""),
                role=parts.get("as", ""),
                reason=reason,
            )
        )

    def _show(self, words: list[str], line: str) -> None:
        """Nodes and groups as status would show them."""
        world, view = self.world, self.world.view()
        for name, node in view.nodes.items():
            how = standing(node, world.now, view)
            world.tell(f"{name}: {how.state.value}" + (f", {how.why}" if how.why else ""))
        for name, group in view.groups.items():
            roles = ", ".join(f"{c.node} {role_of(c.node, group, view, world.now)}" for c in group.candidates)
            world.tell(f"{name}: {group.phase.value}@{group.assignment.epoch}; {roles}")


def seconds(text: str) -> float:
    """``500ms``, ``1.5s``, ``2m``, ``1h``."""
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit):
            return float(text[: -len(unit)]) * factor
    raise ValueError(text)
