"""Default gateways as the kernel prints them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from hasys.monitors import routes

IPV4 = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\tFE004D0A\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t00004D0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t00000000\t00000000\t0001\t0\t0\t10\t00000000\t0\t0\t0
eth2\t0000A8C0\tFE00A8C0\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
ZERO, NEXT = "0" * 32, "fe80000000000000" + "00000000000000fe"
IPV6 = f"""\
{ZERO} 00 {ZERO} 00 {NEXT} 00000400 00000001 00000000 00000003     eth0
{ZERO} 00 {ZERO} 00 {ZERO} ffffffff 00000001 00000000 00200200       lo
fd770000000000000000000000000000 40 {ZERO} 00 {ZERO} 00000100 00000001 00000000 00000001     eth0
"""


def test_default_routes_with_a_gateway_count_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(IPV4)
    (tmp_path / "ipv6_route").write_text(IPV6)
    assert routes.gateways(tmp_path) == {"eth0": ("10.77.0.254", "fe80::fe")}


def test_a_kernel_without_ipv6_or_without_routes_has_no_gateways(tmp_path: Path) -> None:
    (tmp_path / "route").write_text(IPV4.splitlines()[0] + "\n")
    assert routes.gateways(tmp_path) == {}
    assert routes.gateways(tmp_path / "nowhere") == {}


class Looks(threading.Event):
    """Does one thing before each look, and is over when nothing is left to do."""

    def __init__(self, *deeds: Callable[[], object]) -> None:
        super().__init__()
        self.left = list(deeds)

    def wait(self, timeout: float | None = None) -> bool:
        if self.left:
            self.left.pop(0)()
            return False
        return True


def test_another_gateway_ends_the_wait_and_other_routes_do_not(tmp_path: Path) -> None:
    file = tmp_path / "route"
    known: dict[str, tuple[str, ...]] = {"eth0": ("10.77.0.254",)}
    first, second, *_ = IPV4.splitlines(keepends=True)
    quiet = [lambda: file.write_text(IPV4), lambda: file.write_text(first + second), lambda: None]
    looks = Looks(*quiet, lambda: file.write_text(IPV4.replace("FE004D0A", "FD004D0A")), lambda: None)
    assert routes.changed(known, looks, tmp_path) == {"eth0": ("10.77.0.253",)}
    assert len(looks.left) == 1
    assert routes.changed(known, Looks(*quiet), tmp_path) == known
