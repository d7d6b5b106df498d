"""Text of others in logs and messages: one line, nothing that moves a cursor."""

from __future__ import annotations

import logging
import os
import sys


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


def log_to_stderr() -> None:
    """Send this process's log to standard error: time, level, part, text. ``HASYS_LOG`` names the least level."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=os.environ.get("HASYS_LOG", "INFO"), handlers=[handler])
