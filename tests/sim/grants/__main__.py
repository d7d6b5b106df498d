"""Longer runs: ``python -m tests.sim.grants --seconds 600 --seed 100000``; ``--fault NAME``: what the checker catches.

Prints each seed that broke a promise; ``--replay SEED`` prints its story. Exit status 1 when any did.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable

from tests.sim.grants.arbiter import ArbiterNodes
from tests.sim.grants.faults import FAULTS
from tests.sim.grants.history import FOCI, History, Parts
from tests.sim.grants.tokens import TwoNodes
from tests.sim.grants.world import Violation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.grants", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0, help="first seed")
    parser.add_argument("--focus", choices=FOCI, default="", help="draw faults of one sort only")
    parser.add_argument("--fault", choices=FAULTS, help="break a rule on purpose")
    parser.add_argument("--two-nodes", action="store_true", help="two voters that hold by tokens; alone")
    parser.add_argument("--arbiter", action="store_true", help="two voters and a disk that decides; alone")
    parser.add_argument("--replay", type=int, metavar="SEED", help="play one seed and tell its story")
    args = parser.parse_args()
    if args.arbiter:
        return run(args, lambda seed, trace: ArbiterNodes(seed, trace=trace))
    if args.two_nodes:
        return run(args, lambda seed, trace: TwoNodes(seed, trace=trace))
    parts = FAULTS[args.fault] if args.fault else Parts
    return run(args, lambda seed, trace: History(seed, parts(), args.focus, trace=trace))


def run(args: argparse.Namespace, make: Callable[[int, bool], History]) -> int:
    if args.replay is not None:
        return replay(make(args.replay, True))
    end = time.monotonic() + args.seconds
    broken = 0
    for seed in itertools.count(args.seed):
        if time.monotonic() >= end:
            break
        try:
            make(seed, False).run()
        except Violation as e:
            broken += 1
            print(f"seed {seed}: {e}", flush=True)
    print(f"{seed - args.seed} histories, {broken} broke a promise")
    return 1 if broken else 0


def replay(history: History) -> int:
    try:
        history.run()
        end = "nothing was broken"
    except Violation as e:
        end = str(e)
    print("\n".join([*history.world.trace, end]))
    return 0 if end.startswith("nothing") else 1


if __name__ == "__main__":
    sys.exit(main())
