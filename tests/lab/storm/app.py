"""The application of the storm: it writes down, every few milliseconds, that it runs. Two at once is what S1b forbids.

Usage: ``python app.py FOLDER``. Appends the monotonic clock (8 bytes, nanoseconds; one clock for every machine of the
lab) to FOLDER/<host name>.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from pathlib import Path

PERIOD = 0.005
"""Seconds between two marks."""


def main() -> None:
    """Run until killed."""
    with (Path(sys.argv[1]) / socket.gethostname()).open("ab", buffering=0) as marks:
        while True:
            marks.write(struct.pack("!Q", time.monotonic_ns()))
            time.sleep(PERIOD)


def marks_of(file: Path, since: float) -> list[float]:
    """The marks of one machine after an instant (monotonic seconds)."""
    data = file.read_bytes() if file.exists() else b""
    whole = len(data) // 8 * 8
    return [t for (n,) in struct.iter_unpack("!Q", data[:whole]) if (t := n / 1e9) >= since]


if __name__ == "__main__":
    main()
