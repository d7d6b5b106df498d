"""What every member of a cluster understands, as one number that only grows (docs/decisions, "A level for all").

Commands are applied by every member alike: what one of them does not know it would refuse while the others carry it
out, and their states would differ. So whoever leads lets nothing into the log, and a guard says nothing to a leader,
that needs a higher level than all members have. The level in force is stored with the cluster; the leader raises it
when the store of each member has told that it is there, and an older member that comes later ends where it reads that.

Adding a kind, a type of operation, a rule of the state machine or a word of the lease protocol: raise :data:`LEVEL`
(once per release) and say here what needs it.
"""

from __future__ import annotations

from collections.abc import Iterable

from hasys.model.errors import Refused

LEVEL = 2
"""Of this code."""
FIRST = 1
"""Of code that says none."""

_KINDS = {"Fencing": 2, "ReplicatedVolume": 2}
_OPERATIONS = {"Fence": 2, "RestartProcess": 2}

GROUP_MEMBERS = 2
"""The state machine bounds how many members a group has."""
DISK_FAILED = 2
"""Keep-alives may say that the store of their node ended because of its disk."""


def of_kind(kind: str) -> int:
    """From which level on objects of this kind may be stored."""
    return _KINDS.get(kind, FIRST)


def of_operation(kind: str) -> int:
    """From which level on operations of this type may be asked for."""
    return _OPERATIONS.get(kind, FIRST)


def common(levels: Iterable[int]) -> int:
    """The level of members that have these, 0 being what an older one says; of nobody: that of this code."""
    return min((level or FIRST for level in levels), default=LEVEL)


def check(required: int) -> None:
    """Raises ``Refused`` where members understand more than this code: what it does not know comes after that in the
    log, so it may go no further."""
    if required > LEVEL:
        raise Refused(
            f"this version understands level {LEVEL}, the cluster needs {required}: "
            "install the version of the other members here"
        )


def refusal(what: str, level: int) -> str:
    """For people: why something is not accepted yet."""
    return (
        f"{what} needs every member to run a version that knows it (level {level}): "
        "finish the upgrade first, see docs/upgrade.md"
    )
