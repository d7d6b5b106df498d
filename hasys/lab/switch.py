"""The switch: two networks and the faults that happen on the way. It lives in a network namespace of its own.

Ports are named ``<machine>.<network number>``. Silent loss is one nftables table of the *bridge* family: a frame is
dropped between two ports, so neither end notices anything but silence. The observer's port is exempt from every drop:
it is how the lab sees a cut-off machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

from hasys.lab.shell import run

NETWORKS = ("public", "heartbeat")
"""Network 0 is eth0 of every machine, network 1 is eth1."""

OBSERVER = "observer"

_RULES = f"""
table bridge lab {{
  set from {{ type ifname; }}
  set to {{ type ifname; }}
  set cut {{ type ifname . ifname; }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname "{OBSERVER}.0" accept
    oifname "{OBSERVER}.0" accept
    iifname @from drop
    oifname @to drop
    iifname . oifname @cut drop
  }}
}}
"""


class Direction(Enum):
    """Seen from the machine: what it says gets lost, what it should hear gets lost, or both."""

    OUT = ("from",)
    IN = ("to",)
    BOTH = ("from", "to")


class Switch:
    """Two bridges and their ports."""

    def __init__(self, netns: str) -> None:
        self.netns = netns

    def create(self) -> None:
        run("ip", "netns", "add", self.netns)
        lines = []
        for bridge in NETWORKS:
            lines += [
                f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0",
                f"link set {bridge} up",
            ]
        self._ip(lines)
        self._nft(_RULES)

    def connect(self, machine: str, network: int, netns: str, mac: str) -> None:
        """Lay a cable from a new port to ``eth<network>`` of the machine in ``netns``."""
        port = port_name(machine, network)
        self._ip(
            [
                f"link add {port} type veth peer name eth{network} address {mac} netns {netns}",
                f"link set {port} master {NETWORKS[network]}",
                f"link set {port} up",
            ]
        )

    def disconnect(self, ports: Iterable[str]) -> None:
        """Take ports away, cables and all."""
        self._ip([f"link del {port}" for port in ports])

    def carrier(self, ports: Iterable[str], up: bool) -> None:
        """Plug in or pull out the cables of these ports (all in one go): the machine sees its carrier come or go."""
        self._ip([f"link set {port} {'up' if up else 'down'}" for port in ports])

    def drop(self, ports: Sequence[str], direction: Direction) -> None:
        """Lose every frame of these ports in that direction, from one instant on, without a sign of it."""
        elements = ", ".join(f'"{p}"' for p in ports)
        self._nft("".join(f"add element bridge lab {s} {{ {elements} }}\n" for s in direction.value))

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Lose every frame that goes from the first port of a pair to the second."""
        elements = ", ".join(f'"{a}" . "{b}"' for a, b in pairs)
        self._nft(f"add element bridge lab cut {{ {elements} }}")

    def heal(self) -> None:
        """End every drop and cut. Pulled cables stay pulled."""
        self._nft("".join(f"flush set bridge lab {s}\n" for s in ("from", "to", "cut")))

    def _ip(self, lines: list[str]) -> None:
        run("ip", "-n", self.netns, "-batch", "-", feed="\n".join(lines) + "\n")

    def _nft(self, commands: str) -> None:
        run("ip", "netns", "exec", self.netns, "nft", "-f", "-", feed=commands)


def port_name(machine: str, network: int) -> str:
    return f"{machine}.{network}"
