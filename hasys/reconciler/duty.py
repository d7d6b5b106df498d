"""What an assignment asks of one node. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from hasys.guard.client import SwornTo
from hasys.v1 import objects_pb2 as pb


class Duty(Enum):
    """What to do about a group here."""

    HOLD = auto()
    """Run it."""
    LEAVE = auto()
    """It goes elsewhere: stop in order, then confirm the release."""
    NONE = auto()
    """Nothing of it may be here."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A duty and its details."""

    duty: Duty
    epoch: int = 0
    """The epoch to act under: the present one to hold, the previous one to leave."""
    newest: int = 0
    """Epoch of the assignment that was read: anything above is unknown to it."""
    version: int = 0
    """``GroupStatus.resources_version`` that was read."""
    run: bool = True
    """HOLD: with its resources running; False: stopped, but still assigned."""
    force: bool = False
    """LEAVE and NONE: at once, without asking first."""
    attempt: int = 0
    retry_step: str = ""


def wish(group: pb.Group | None, node: str, oath: SwornTo | None = None) -> Wish:
    """What the stored group asks of ``node``; None: the group does not exist.

    An operator's oath stands above the assignment, until the leader gives the group to this node at a later epoch, or
    the guard ends the oath.
    """
    if group is None or group.spec.mode != pb.GroupSpec.Mirror:
        return Wish(Duty.NONE, force=True)
    a = group.status.assignment
    version = group.status.resources_version
    if oath is not None and not (a.node == node and a.epoch > oath.epoch):
        duty = Duty.LEAVE if oath.leaving else Duty.HOLD
        return Wish(duty, oath.epoch, oath.epoch, version, run=not oath.leaving, attempt=a.attempt)
    if a.node == node:
        run = not (a.stopped or group.metadata.HasField("deleting"))
        return Wish(Duty.HOLD, a.epoch, a.epoch, version, run, attempt=a.attempt, retry_step=a.retry_step)
    if a.previous_node == node and a.previous_epoch:
        return Wish(Duty.LEAVE, a.previous_epoch, a.epoch, version, run=False, force=a.revoked)
    return Wish(Duty.NONE, newest=a.epoch, force=True)
