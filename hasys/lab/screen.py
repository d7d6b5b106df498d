"""What the spectator of the demo sees: a live page on a terminal, plain lines with times everywhere else."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import click

from hasys.lab.feed import Status, StatusFeed, brief
from hasys.lab.instruments import Probe
from hasys.lab.records import Question

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

_CELL = 0.2
"""Seconds per cell of the client's strip."""
_CELLS = 72


class Screen(ABC):
    """Narration, status and what the client sees."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __enter__(self) -> Screen:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the terminal."""

    @abstractmethod
    def say(self, text: str) -> None:
        """One step of the story."""

    @abstractmethod
    def follow(self, feed: StatusFeed) -> None:
        """From now on show the cluster's status."""

    @abstractmethod
    def listen(self, probe: Probe) -> None:
        """From now on show what the client sees."""

    def _stamp(self) -> str:
        return f"{time.monotonic() - self._began:5.1f} s"


class Plain(Screen):
    """Lines, for logs and pipes. The status is a line whenever it reads differently."""

    def __init__(self) -> None:
        super().__init__()
        self._shown = ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def say(self, text: str) -> None:
        click.echo(f"{self._stamp()}  {text}")

    def follow(self, feed: StatusFeed) -> None:
        feed.on_change(self._show)

    def listen(self, probe: Probe) -> None:
        return

    def _show(self, status: Status) -> None:
        line = brief(status)
        if line != self._shown:
            self._shown = line
            click.echo(f"{self._stamp()}    status: {line}")


class Terminal(Screen):
    """A page that rich redraws: status, the client's strip, the story so far."""

    def __init__(self) -> None:
        super().__init__()
        self._story: list[str] = []
        self._feed: StatusFeed | None = None
        self._probe: Probe | None = None
        self._live = self._open()

    def _open(self) -> Live:
        from rich.live import Live

        live = Live(get_renderable=self._page, refresh_per_second=8)
        live.start()
        return live

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._story.append(f"{self._stamp()}  {text}")
        self._live.refresh()

    def follow(self, feed: StatusFeed) -> None:
        self._feed = feed

    def listen(self, probe: Probe) -> None:
        self._probe = probe

    def _page(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        parts: list[RenderableType] = []
        status = self._feed.latest if self._feed else None
        if status is not None:
            parts += [_tables(status), Text()]
        if self._probe is not None:
            parts += [_strip(self._probe), Text()]
        return Group(*parts, *(Text(line) for line in self._story))


_STYLES = {
    "Ready": "green", "Running": "green", "Active": "bold green", "Standby": "cyan", "Lost": "bold red",
    "Failed": "bold red", "FailingOver": "yellow", "Starting": "yellow", "Stopping": "yellow", "NotReady": "yellow",
}  # fmt: skip


def _tables(status: Status) -> RenderableType:
    from rich.table import Table

    table = Table(title=f"cluster {status['cluster']['name']}, leader {status['cluster'].get('leader') or '-'}")
    groups: Sequence[Status] = status["groups"]
    for column in ("node", "state", *(f"group {g['name']}" for g in groups), "resources"):
        table.add_column(column)
    for node in status["nodes"]:
        name = node["name"]
        roles = [_styled(g.get("nodes", {}).get(name, "")) for g in groups]
        running = [
            f"{r['name']} {_styled(r['state'])}" for g in groups for r in g["resources"] if r.get("node") == name
        ]
        table.add_row(name, _styled(node["state"]), *roles, ", ".join(running))
    return table


def _styled(word: str) -> str:
    style = _STYLES.get(word)
    return f"[{style}]{word}[/{style}]" if style else word


def _strip(probe: Probe) -> RenderableType:
    """The client's last seconds: a cell is green when every question of its time was answered, red when none was."""
    from rich.text import Text

    end = time.monotonic() - _CELL
    text = Text("client  ")
    for share in answered_share(probe.questions(end - _CELLS * _CELL), end - _CELLS * _CELL, _CELL, _CELLS):
        text.append("█", style="dim" if share is None else "green" if share == 1 else "red" if share == 0 else "yellow")
    text.append(f"  the last {_CELLS * _CELL:.0f} s")
    return text


def answered_share(questions: Sequence[Question], start: float, cell: float, cells: int) -> list[float | None]:
    """For each of ``cells`` slices of time, the share of its questions that was answered; None: none was asked."""
    asked, answered = [0] * cells, [0] * cells
    for q in questions:
        i = int((q.sent - start) / cell)
        if q.sent >= start and i < cells:
            asked[i] += 1
            answered[i] += q.received is not None
    return [a / n if n else None for a, n in zip(answered, asked, strict=True)]


def open_screen() -> Screen:
    """The terminal's page when there is a terminal, lines otherwise."""
    return Terminal() if sys.stdout.isatty() else Plain()
