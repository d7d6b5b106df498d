"""A child for the supervisor's tests: RUN_DIR ROLE [mode]. Writes what happens to it to RUN_DIR/journal."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from hasys.notify import ALIVE, READY, Notifier
from hasys.processes import RoleLock


def note(run_dir: Path, text: str) -> None:
    descriptor = os.open(run_dir / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, f"{text}\n".encode())
    os.close(descriptor)


def main() -> int:
    run_dir, role, modes = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    RoleLock(run_dir, role).take()
    stubborn = "stubborn" in modes

    def on_term(_number: int, _frame: object) -> None:
        note(run_dir, f"{role} asked to stop")
        if not stubborn:
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_term)
    note(run_dir, f"{role} started {os.getpid()}")
    listener = Notifier.from_environment()
    signal.signal(signal.SIGUSR1, lambda *_: listener.say(READY))
    if "waits" not in modes:
        listener.say(READY)
    print(f"hello from {role}", flush=True)
    if "ends" in modes:
        note(run_dir, f"{role} ended")
        return 3
    while True:
        if listener.period and "waits" not in modes:
            listener.say(ALIVE)
            time.sleep(listener.period)  # a signal ends it
        else:
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
