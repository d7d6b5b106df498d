"""Fuzzing of the decoders: ``make fuzz ARGS="--seconds 600 lease manifest"`` (no name: all). Guided by coverage, or
with ``--hypothesis`` by Hypothesis alone (edits of valid inputs, and garbage), which makes a finding small by itself.

Inputs that reach new code are kept in out/fuzz/TARGET and used by the next run; an input that shows a finding is
written to out/fuzz/TARGET-crash-... and goes, made small, to tests/fuzz/regressions/TARGET with the fix.
"""

from __future__ import annotations

import argparse
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz import scratch
from tests.fuzz.edits import edited, garbage
from tests.fuzz.targets import TARGETS

OUT = Path("out/fuzz")
SLOWEST = 5
"""Seconds that one input may take, where nothing else runs."""
MEMORY = 1024
"""MiB that the whole process may use."""
LONGEST = 8192
"""Bytes of the longest input tried."""


def fuzz(name: str, seconds: int, slowest: int) -> bool:
    """Run one target; False when it has found something."""
    began = _processor(resource.RUSAGE_CHILDREN)
    corpus = OUT / name
    corpus.mkdir(parents=True, exist_ok=True)
    for serial, sample in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{serial}").write_bytes(sample)
    argv = [
        sys.executable, "-m", "tests.fuzz.one", name, str(corpus), f"-max_total_time={seconds}",
        f"-timeout={slowest}", f"-rss_limit_mb={MEMORY}", f"-max_len={LONGEST}",
        f"-artifact_prefix={OUT}/{name}-", "-verbosity=1", "-print_final_stats=1",
    ]  # fmt: skip
    log = OUT / f"{name}.log"
    with log.open("w") as said:
        status = subprocess.run(argv, stdout=said, stderr=said, check=False).returncode
    lines = log.read_text(errors="replace").splitlines()
    stats = {k.strip(): v.strip() for k, _, v in (line.removeprefix("stat::").partition(":") for line in lines)}
    runs, memory = stats.get("number_of_executed_units", "?"), stats.get("peak_rss_mb", "?")
    used = _processor(resource.RUSAGE_CHILDREN) - began
    found = "found something" if status else "nothing found"
    print(f"{name}: {runs} inputs in {seconds} s ({used:.0f} s of processor), {memory} MiB, {found}", flush=True)
    if status:
        print("\n".join(lines[-40:]))
    return status == 0


def by_hypothesis(name: str, seconds: int, slowest: int) -> bool:
    """The same target with random inputs of Hypothesis, another seed each time; a finding is raised."""
    end, tried, target = time.monotonic() + seconds, 0, TARGETS[name]
    began = _processor(resource.RUSAGE_SELF)

    @settings(max_examples=500, deadline=1000 * slowest, database=None, suppress_health_check=list(HealthCheck))
    @given(edited(target.seeds()) | garbage)
    def inputs(data: bytes) -> None:
        nonlocal tried
        tried += 1
        target.run(data)

    while time.monotonic() < end:
        seed(secrets.randbits(64))(inputs)()
    used = _processor(resource.RUSAGE_SELF) - began
    print(f"{name}: {tried} inputs of Hypothesis in {seconds} s ({used:.0f} s of processor), nothing found", flush=True)
    return True


def _processor(who: int) -> float:
    """Seconds of processor time so far: what counts on a busy machine."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Exit status 1 when any target has found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--hypothesis", action="store_true", help="not guided by coverage: inputs of Hypothesis")
    parser.add_argument("--slowest", type=int, default=SLOWEST, help="seconds for one input; more on a busy machine")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    options = parser.parse_args()
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    kind = by_hypothesis if options.hypothesis else fuzz
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also then nothing is left
    with scratch.folder():
        results = [kind(name, options.seconds, options.slowest) for name in options.targets or TARGETS]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
