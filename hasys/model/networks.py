"""What can be wrong with a node's network, in the words that agent, guard, leader and operators share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum


class Fault(IntEnum):
    """How bad it is: a node with a smaller fault serves better."""

    UNSTEADY = 1
    """It works now but was lost a moment ago: no reason to leave, and none to come."""
    GATEWAY = 2
    """Neighbours are reached, the gateway is not: clients beyond it are lost."""
    SILENT = 3
    """The link is up, and nobody on it answers."""
    LINK = 4
    """No interface, set down, or no carrier."""


SEVERE = Fault.SILENT
"""From here on nobody is served."""


class LostNetworks(StrEnum):
    """For which loss a group leaves its node."""

    ANY = "Any"
    """One of the interfaces that its addresses use."""
    ALL = "All"
    """Every one of them."""
    NEVER = "Never"


@dataclass(frozen=True, slots=True)
class Trouble:
    """One interface that is not as it should be, as its node sees it."""

    interface: str
    fault: Fault
    text: str
    """For people, with the interface's name and without running figures: it is stored."""
    unheard: tuple[str, ...] = ()
    """SILENT: the members that were asked. Silence of a member that is off, or unplugged itself, proves nothing."""
    gateway: bool = False
    """SILENT: a gateway was asked too."""
