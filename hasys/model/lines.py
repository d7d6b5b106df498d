"""Text of others in logs and messages: one line, nothing that moves a cursor."""

from __future__ import annotations

import json
import logging
import os
import sys
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


class JsonLine(logging.Formatter):
    """One JSON object per record: ``time`` (RFC 3339 UTC), ``level``, ``part``, ``message``, a fault's ``trace``."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return json_line(record.created, record.levelname, record.name, record.getMessage(), trace)


def json_line(at: float, level: str, part: str, message: str, trace: str = "") -> str:
    """``at``: seconds of the wall clock. ASCII alone, so that no text of others can move a cursor."""
    time = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown = {"time": time, "level": level, "part": part, "message": message, **({"trace": trace} if trace else {})}
    return json.dumps(shown)


def log_to_stderr(form: str = "text") -> None:
    """Send this process's log to standard error: time, level, part, text; as ``json`` one object per line.
    ``HASYS_LOG`` names the least level."""
    handler = logging.StreamHandler(sys.stderr)
    text = OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLine() if form == "json" else text)
    logging.basicConfig(level=os.environ.get("HASYS_LOG", "INFO"), handlers=[handler])
