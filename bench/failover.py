"""How long is a virtual IP away, and did two machines ever hold it? hasys beside keepalived and Pacemaker, same run.

Usage: ``python -m bench.failover [--runs N] [--product NAME...] [--json FILE]`` (root). See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.products import VIP, Hasys, Keepalived, Pacemaker, Product
from hasys.lab.lab import Lab, missing

PRODUCTS: dict[str, Callable[[Lab, Sequence[str]], Product]] = {
    "hasys": lambda lab, timing: Hasys(lab, timing=timing),
    "hasys-fast": lambda lab, timing: Hasys(lab, "fast", timing),
    "hasys-systemd": lambda lab, timing: Hasys(lab, timing=timing, systemd=True),
    "hasys-fast-systemd": lambda lab, timing: Hasys(lab, "fast", timing, systemd=True),
    "keepalived-1s": lambda lab, _: Keepalived(lab, 1.0),
    "keepalived-0.1s": lambda lab, _: Keepalived(lab, 0.1),
    "pacemaker": lambda lab, _: Pacemaker(lab, None),
    "pacemaker-1000": lambda lab, _: Pacemaker(lab, 1000),
}
DEFAULT = ("hasys", "keepalived-1s", "keepalived-0.1s", "pacemaker", "pacemaker-1000")

AFTER = 0.5
"""Seconds watched after service has returned: a late second holder must show."""
AFTER_KILL = 2.0
"""Seconds watched after a kill, which should not be felt at all: long enough for a restart to go wrong."""
IDLE = 10.0
"""Seconds over which the cost at rest is taken."""


@dataclass
class Series:
    """All runs of one fault on one product; seconds."""

    product: str
    fault: str
    outages: list[float] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    """Length of each time with two holders."""
    blind: float = 0.0
    """Longest pause of probe or watcher in any run: nothing shorter than this can be told apart."""

    def row(self) -> list[str]:
        worst = max(self.overlaps, default=0.0)
        two = f"{len(self.overlaps)} (longest {_ms(worst)})" if self.overlaps else "0"
        taken = self.outages
        figures = (statistics.median(taken), quantile(taken, 0.95), quantile(taken, 0.99), max(taken))
        return [self.product, self.fault, str(len(taken)), *map(_ms, figures), two, _ms(self.blind)]


@dataclass(frozen=True)
class Cost:
    """One machine at rest."""

    product: str
    machine: str
    cpu_percent: float
    """Of one core."""
    resident_mb: float
    proportional_mb: float


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least the share ``q`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(q * 100) // 100) - 1)]


def measure(product: Product, fault: str, runs: int) -> Series:
    """Do a fault ``runs`` times, each from a settled state."""
    series = Series(product.name, fault)
    for i in range(runs):
        active = product.settle()
        start = time.monotonic()
        product.strike(fault, active)
        struck = time.monotonic()
        product.probe.wait_answer(60, since=struck)
        watch_until = time.monotonic() + (AFTER_KILL if fault.startswith("kill") else AFTER)
        time.sleep(max(0.0, watch_until - time.monotonic()))
        seen = product.probe.outage(start)
        found = product.watch.overlaps(since=start)
        series.outages.append(seen.longest)
        series.lost.append(seen.lost)
        series.overlaps += [o.end - o.start for o in found]
        dark = max((b - a for a, b in product.watch.dark(since=start)), default=0.0)
        series.blind = max(series.blind, seen.blind, dark)
        note = f"  TWO HOLDERS: {'; '.join(map(str, found))}" if found else ""
        print(
            f"{product.name}: {fault} {i + 1}/{runs}: {_ms(seen.longest)}, blind {_ms(seen.blind)}{note}",
            file=sys.stderr,
        )
    return series


def cost(product: Product) -> list[Cost]:
    """What each machine costs while nothing happens."""
    product.settle()
    names = [n for n in product.lab.machines if n in ("n1", "n2", "w")]
    before = {n: product.lab.machines[n].usage() for n in names}
    start = time.monotonic()
    time.sleep(IDLE)
    passed = time.monotonic() - start
    costs = []
    for n in names:
        after = product.lab.machines[n].usage()
        share = 100 * (after.cpu - before[n].cpu) / passed
        costs.append(Cost(product.name, n, share, after.resident / 2**20, after.proportional / 2**20))
    return costs


def machine_line() -> str:
    """What this was measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load at the start {load:.1f}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain columns, first two to the left, figures to the right."""
    widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))).rstrip()
        for r in (head, *rows)
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def main() -> int:
    """Run, print, and fail (1) when hasys ever had two holders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10, help="how often each fault (default 10)")
    parser.add_argument("--product", action="append", choices=sorted(PRODUCTS), help=f"default: {', '.join(DEFAULT)}")
    parser.add_argument("--fault", action="append", help="only these faults")
    parser.add_argument("--json", type=Path, help="also write everything there")
    parser.add_argument("--timing", action="append", default=[], metavar="FIGURE=TIME", help="hasys: as ttl=400ms")
    options = parser.parse_args()
    lack = missing()
    if lack:
        print(f"bench/failover {lack}", file=sys.stderr)
        return 1
    host = machine_line()
    print(host)
    series: list[Series] = []
    costs: list[Cost] = []
    for name in options.product or DEFAULT:
        with Lab() as lab:
            product = PRODUCTS[name](lab, options.timing)
            costs += cost(product)
            series += [
                measure(product, f, options.runs) for f in product.faults if f in (options.fault or product.faults)
            ]
    head = ("product", "fault", "runs", "median", "p95", "p99", "worst", "two holders", "blind")
    print(f"\nOutage of {VIP} as the client saw it\n" + table(head, [s.row() for s in series]))
    rows = [
        [c.product, c.machine, f"{c.cpu_percent:.1f} %", f"{c.resident_mb:.0f} MB", f"{c.proportional_mb:.0f} MB"]
        for c in costs
    ]
    print("\nCost at rest\n" + table(("product", "machine", "of one core", "resident", "proportional"), rows))
    if options.json:
        found = {"machine": host, "series": [asdict(s) for s in series], "costs": [asdict(c) for c in costs]}
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if any(s.overlaps for s in series if s.product.startswith("hasys")) else 0


if __name__ == "__main__":
    sys.exit(main())
