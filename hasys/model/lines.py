"""Text of others in logs and messages: one line, nothing that moves a cursor."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime


def one_line(text: str) -> str:
    """The text without anything that could move a cursor or begin another line: such characters are written out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode("ascii") for c in text)


class OneLine(logging.Formatter):
    """One line per record, whatever tracebacks and foreign texts contain."""

    def format(self, record: logging.LogRecord) -> str:
        """The record; line ends of tracebacks become " | "."""
        record.message = one_line(record.getMessage())
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        parts = [self.formatMessage(record)]
        if record.exc_info:
            parts += self.formatException(record.exc_info).splitlines()
        return " | ".join(one_line(part) for part in parts)


_ABOUT: ContextVar[tuple[str, int]] = ContextVar("_ABOUT", default=("", 0))


def about(group: str, epoch: int = 0) -> None:
    """What the records of this task, and of those that it starts from now on, are about; 0: no epoch is known."""
    _ABOUT.set((group, epoch))


@dataclass(frozen=True, slots=True)
class Speaker:
    """Whose log it is. Empty: not said."""

    role: str = ""
    """store | guard | agent | telemetry."""
    node: str = ""


class JsonLine(logging.Formatter):
    """One JSON object per record: see :func:`json_line`."""

    def __init__(self, speaker: Speaker = Speaker()) -> None:
        super().__init__()
        self._speaker = speaker

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return json_line(record.created, record.levelname, record.name, record.getMessage(), trace, self._speaker)


def json_line(at: float, level: str, part: str, message: str, trace: str = "", speaker: Speaker = Speaker()) -> str:
    """``time`` (RFC 3339 UTC), ``level``, ``role``, ``node``, ``group``, ``epoch`` as far as they are known, ``part``,
    ``message``, a fault's ``trace``. ``at``: seconds of the wall clock. ASCII: no text of others moves a cursor."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    group, epoch = _ABOUT.get()
    known = {"role": speaker.role, "node": speaker.node, "group": group, "epoch": epoch}
    told = {name: value for name, value in known.items() if value}
    shown = {"time": time, "level": level, **told, "part": part, "message": message}
    return json.dumps({**shown, "trace": trace} if trace else shown)


def log_to_stderr(form: str = "text", role: str = "", node: str = "") -> None:
    """Send this process's log to standard error: time, level, part, text; as ``json`` one object per line.
    ``HASYS_LOG`` names the least level."""
    handler = logging.StreamHandler(sys.stderr)
    text = OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLine(Speaker(role, node)) if form == "json" else text)
    logging.basicConfig(level=os.environ.get("HASYS_LOG", "INFO"), handlers=[handler])
