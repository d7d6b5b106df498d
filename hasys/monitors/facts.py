"""What a machine is, and how busy it is: for people who look at it from afar."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import psutil
from google.protobuf.timestamp_pb2 import Timestamp

from hasys.api.convert import duration
from hasys.monitors.load import Processors, memory
from hasys.monitors.traffic import Rates
from hasys.v1 import monitors_pb2 as mpb

_MODELS = ("/sys/class/dmi/id/product_name", "/proc/device-tree/model")


class Gauges:
    """Reads the figures of this machine; a difference counts since the last reading. Touches files of the kernel
    alone."""

    def __init__(self) -> None:
        self._processors = Processors()
        self._rates = Rates()
        self._host = host()

    def read(self) -> mpb.NodeFigures:
        """The figures as of now."""
        figures = mpb.NodeFigures(
            cpu=self._processors.read() or 0.0,
            memory=memory(),
            processes=sum(name.isdecimal() for name in os.listdir("/proc")),
            host=self._host,
            time=Timestamp(seconds=int(time.time())),
        )
        figures.host.uptime.CopyFrom(duration(round(time.clock_gettime(time.CLOCK_BOOTTIME))))
        for name, (received, sent) in self._rates.take().items():
            figures.traffic[name].received, figures.traffic[name].sent = received, sent
        return figures


def host() -> mpb.HostFacts:
    """What does not change while the machine runs."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    return mpb.HostFacts(
        model=next((text for path in _MODELS if (text := _line(path))), "unknown"),
        os=release.get("PRETTY_NAME", platform.system()),
        kernel=platform.release(),
        processor=_processor() or platform.machine(),
        processors=psutil.cpu_count() or 1,
        memory=psutil.virtual_memory().total,
    )


def _line(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip("\0\n ")[:100]
    except OSError:
        return ""


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return ""
    found = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(found, "")[:100]
