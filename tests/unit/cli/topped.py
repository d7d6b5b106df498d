"""What ``hasys top`` shows, read from its screen: the same characters that a terminal gets, without colours."""

from __future__ import annotations

from hasys.cli.top.app import TopApp
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.fake import FakeCluster, contract_view, web_group, web_ip

SIZE = (80, 24)
"""The smallest terminal that must do."""


def screen_of(app: TopApp) -> str:
    """Every line of the screen."""
    strips = app.screen._compositor.render_strips(app.size)
    return "\n".join(strip.text.rstrip() for strip in strips).rstrip()


def web_app(state: str = "Running") -> pb.Application:
    """A program of the group, after its address."""
    program = pb.Application()
    program.metadata.name, program.metadata.group = "web-app", "web"
    program.spec.after.append("web-ip")
    program.status.node, program.status.state = "n1", state
    return program


def event(number: int, reason: str, message: str, group: str = "web", node: str = "n1") -> pb.Event:
    """The event with that number."""
    made = pb.Event(type="Normal", reason=reason, message=message, node=node)
    made.metadata.name, made.metadata.resource_version = f"e{number}", number
    made.regarding.kind, made.regarding.name = "Group", group
    made.time.seconds = 1_800_000_000 + number
    return made


def view() -> api.StatusResponse:
    """The contract's example with a second node, a witness, a program that failed, and a monitor."""
    status = contract_view()
    status.nodes.add(name="n2", role="Voter", state="Ready", version="0.1.0").guard.armed = True
    status.nodes.add(name="w", role="Witness", state="Ready", version="0.1.0")
    status.groups[0].resources.add(kind="Application", name="web-app", node="n1", state="Failed", message="it ended")
    status.groups[0].monitors.add(name="page", watches="http", node="n1", state="Ok", message="200", action="Failover")
    return status


def cluster() -> FakeCluster:
    """A cluster that looks like ``view``."""
    made = FakeCluster(view=view(), silent_after=True)
    program = web_app("Failed")
    program.status.exit_code, program.status.exited = 3, True
    program.status.output, program.status.message = "first line\nno such page\n", "it ended with 3"
    group = web_group()
    group.status.assignment.cause = "preferred node"
    made.put(group, web_ip(), program, event(1, "GroupAssigned", "web goes to n1: preferred node"))
    made.put(event(2, "GroupRunning", "web runs on n1"))
    return made


__all__ = ["SIZE", "cluster", "event", "screen_of", "view", "web_app"]
