"""Random faults for as long as asked: ``python -m tests.lab.storm [--minutes 30] [--seed 1] [--replay SEED]`` (root).

Each round has a seed of its own, counted up from ``--seed``; ``--replay`` plays the schedule of one round. The seed
decides which faults come when, not how processes interleave. At a violation the records are kept in
``out/storm-SEED``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import time
from contextlib import suppress
from pathlib import Path

from hasys.lab.shell import LabError
from tests.lab.stage import Stage
from tests.lab.storm.round import play, stage_for_storms
from tests.lab.storm.schedule import draw


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Faults at random, two and three at once.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=int, help="one round with this seed")
    parser.add_argument("--profile", default="default", choices=("default", "fast"))
    options = parser.parse_args()
    seed = options.seed if options.replay is None else options.replay
    until = time.monotonic() + (options.minutes * 60 if options.replay is None else 0)
    outages: list[float] = []
    with stage_for_storms(options.profile) as (stage, marks):
        while True:
            _say(f"round {seed}: {'; '.join(map(str, draw(seed)))}")
            try:
                outages.append(play(stage, marks, draw(seed), _say))
            except (AssertionError, TimeoutError, LabError) as e:
                _say(f"VIOLATION in round {seed}: {e}")
                _say(f"records: {_keep(stage, marks, seed)}; again: make chaos ARGS='--replay {seed}'")
                return 1
            _say(f"  well; longest time without an answer {outages[-1] * 1000:.0f} ms")
            seed += 1
            if time.monotonic() >= until:
                break
    median = statistics.median(outages) * 1000
    _say(f"{len(outages)} rounds without a violation; longest outage of a round: median {median:.0f} ms")
    return 0


def _keep(stage: Stage, marks: Path, seed: int) -> Path:
    folder = Path("out") / f"storm-{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(marks, folder / "marks")
    for name in stage.cluster.members:
        shutil.copy(stage.machine(name).log, folder)
    with (folder / "holders.txt").open("w") as lines:
        for node, asked in stage.watch.asked("10.77.0.100").items():
            lines.writelines(
                f"{q.sent:.4f} {node} {'-' if q.received is None else f'{q.received:.4f}'}\n" for q in asked
            )
    for kind in ("all", "nodes", "operations", "events"):
        with suppress(LabError):  # no majority
            (folder / f"{kind}.yaml").write_text(stage.cluster.hasys("get", kind, "-o", "yaml"))
    return folder


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
