"""Longer runs: ``python -m tests.sim.store --minutes 10 --seed 1`` (or ``make sim ARGS="--minutes 10 --seed 1"``).

``--histories 1000`` runs so many instead; ``--replay SEED`` plays one seed, makes it small if it fails, and tells its
story; ``--fault NAME`` breaks a rule on purpose. Exit status 1 when any history failed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait

from tests.sim.store.faults import FAULTS
from tests.sim.store.history import Counted, Failed, fails, play, shrink
from tests.sim.store.schedule import Plan, draw
from tests.sim.store.world import Parts

Job = tuple[int, float, str]
"""(seed, virtual seconds, seeded fault)"""
Outcome = tuple[int, Counted, str]
"""(seed, what happened, why it failed)"""


def one(job: Job) -> Outcome:
    """Play one seed, in any process."""
    seed, seconds, fault = job
    try:
        return seed, play(plan_of(seed, seconds, fault), parts_of(fault)), ""
    except Failed as e:
        return seed, Counted(), str(e)


def parts_of(fault: str) -> Parts:
    return FAULTS[fault].parts if fault else Parts()


def plan_of(seed: int, seconds: float, fault: str) -> Plan:
    return draw(seed, seconds, FAULTS[fault].focus if fault else ())


def seeds(args: argparse.Namespace, end: float) -> Iterator[Job]:
    """One after the other, until there were enough or the time is over."""
    for seed in itertools.count(args.seed):
        enough = seed - args.seed >= args.histories if args.histories else time.monotonic() >= end
        if enough:
            return
        yield seed, args.seconds, args.fault


def _outcomes(pool: ProcessPoolExecutor, jobs: Iterator[Job], most: int) -> Iterator[Outcome]:
    """As they come, with few under way: the time decides when it ends."""
    running = {pool.submit(one, job) for job in itertools.islice(jobs, 2 * most)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {pool.submit(one, job) for job in itertools.islice(jobs, len(done))}
        for future in done:
            yield future.result()


def run(args: argparse.Namespace) -> int:
    start = time.monotonic()
    jobs = seeds(args, start + args.minutes * 60)
    total, played, failed = Counted(), 0, 0
    with ProcessPoolExecutor(args.jobs) as pool:
        for seed, counted, why in _outcomes(pool, jobs, args.jobs):
            played += 1
            total += counted
            if why:
                failed += 1
                fault = f' --fault "{args.fault}"' if args.fault else ""
                print(f"{why}\n  replay: python -m tests.sim.store --seconds {args.seconds:g} --replay {seed}{fault}")
            if played % 50 == 0:
                print(f"{played} histories, {failed} failed, {played / (time.monotonic() - start):.2f}/s", flush=True)
    took = time.monotonic() - start
    print(f"{played} histories of {args.seconds:g} virtual seconds, {failed} failed")
    print(f"{took:.0f} s, {played / took:.2f} histories per second")
    print(f"last seed {args.seed + played - 1}; {total}")
    return 1 if failed else 0


def replay(args: argparse.Namespace) -> int:
    parts = parts_of(args.fault)
    found = fails(plan_of(args.replay, args.seconds, args.fault), parts, trace=True)
    if found is None:
        print(f"seed {args.replay}: nothing was broken")
        return 0
    print(f"{found}\nmaking it smaller ...", file=sys.stderr)
    small = shrink(found, parts)
    print("steps that are left:", *small.plan.steps, sep="\n  ")
    print("what happened:", *small.world.trace, small, sep="\n  ")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.store", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--histories", type=int, default=0, help="so many instead of so long")
    parser.add_argument("--seconds", type=float, default=60.0, help="virtual seconds of each history")
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--fault", choices=FAULTS, default="", help="break a rule on purpose")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one seed, shrink it, tell its story")
    args = parser.parse_args()
    return replay(args) if args.replay is not None else run(args)


if __name__ == "__main__":
    sys.exit(main())
