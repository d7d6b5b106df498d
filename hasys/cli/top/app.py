"""The widgets of ``hasys top``: tables that follow the picture, keys, questions. What they show is told elsewhere."""

from __future__ import annotations

import asyncio

from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Static

from hasys.cli.operate import outcome, run_operation, telling, title
from hasys.cli.output import styled
from hasys.cli.session import Cluster
from hasys.cli.top.details import details
from hasys.cli.top.feed import Feed
from hasys.cli.top.offers import COMMANDS, Offer, offer
from hasys.cli.top.picture import COLUMNS, Row, Subject, headline, rows
from hasys.cli.top.screens import AskScreen, DetailScreen
from hasys.model.errors import HasysError
from hasys.v1 import objects_pb2 as pb

_TIMEOUT = 90.0
"""Seconds for the end of an action; it goes on afterwards, and is told to be under way."""
_MEANING = ("PHASE", "STATE", "FAILOVER")
"""Columns whose words are coloured by what they mean."""
_HINT = "Tab: next table   Enter: all about a line   Escape: back"

_CSS = """
#headline { height: 1; text-style: bold; }
#note { height: auto; max-height: 4; }
Input { height: 1; border: none; padding: 0; display: none; }
Input:focus { border: none; }
Input.shown { display: block; }
DataTable { height: auto; background: ansi_default; scrollbar-size-horizontal: 0; }
DataTable > .datatable--header { text-style: bold underline; background: ansi_default; }
DataTable > .datatable--cursor { text-style: none; background: ansi_default; }
DataTable:focus > .datatable--cursor { text-style: reverse; }
#groups { min-height: 3; max-height: 35%; }
#nodes { min-height: 3; max-height: 25%; }
#monitors { max-height: 25%; }
#events { height: 1fr; min-height: 3; }
AskScreen { align: center middle; }
#ask { width: 76; max-width: 100%; height: auto; max-height: 100%; border: ascii; padding: 0 1; }
#ask OptionList { height: auto; max-height: 8; border: none; }
#ask .warning { text-style: bold; margin: 1 0; }
OptionList > .option-list--option-highlighted { text-style: reverse; }
"""


class Table(DataTable[Text]):
    """One table; its line stays chosen while the lines around it change."""

    BINDINGS = [Binding("enter", "select_cursor", "Details")]  # noqa: RUF012

    def __init__(self, panel: str) -> None:
        super().__init__(id=panel, cursor_type="row", zebra_stripes=False)
        self.panel = panel
        self._shown: list[Row] = []

    def on_mount(self) -> None:
        self.add_columns(*COLUMNS[self.panel])

    @property
    def chosen(self) -> str | None:
        """Key of the chosen line."""
        at = self.cursor_row
        return self._shown[at].key if 0 <= at < len(self._shown) else None

    def show(self, made: list[Row]) -> None:
        """These lines, from now on."""
        if [row.key for row in made] != [row.key for row in self._shown]:
            self._show_anew(made)
        else:
            for n, (new, old) in enumerate(zip(made, self._shown, strict=True)):
                for at, cell in enumerate(new.cells):
                    if cell != old.cells[at]:
                        self.update_cell_at(Coordinate(n, at), self._styled(at, cell), update_width=True)
        self._shown = made

    def _show_anew(self, made: list[Row]) -> None:
        chosen = self.chosen
        self.clear()
        for row in made:
            self.add_row(*(self._styled(at, cell) for at, cell in enumerate(row.cells)), key=row.key)
        self.move_cursor(row=next((n for n, row in enumerate(made) if row.key == chosen), 0), animate=False)

    def _styled(self, at: int, cell: str) -> Text:
        return styled(cell) if COLUMNS[self.panel][at] in _MEANING else Text(cell)


class TopApp(App[None]):
    """The whole screen. ``run_async`` ends when the operator leaves; ``failure`` says what ended it otherwise."""

    CSS = _CSS
    ENABLE_COMMAND_PALETTE = False
    BINDINGS = [  # noqa: RUF012
        *(Binding(c.key, f"offer('{c.key}')", c.label) for c in COMMANDS),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("q,ctrl+c", "quit", "Quit", key_display="q"),
    ]

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(ansi_color=True)  # the terminal's own colours, and with NO_COLOR none
        self.theme = "ansi-dark"
        self.feed = Feed(cluster, self._redraw_soon)
        self._due = False
        self.failure: Exception | None = None
        self._cluster = cluster
        self._words = ""

    def compose(self) -> ComposeResult:
        yield Static(id="headline", markup=False)
        for panel in COLUMNS:
            yield Table(panel)
        yield Static(_HINT, id="note", markup=False)
        yield Input(id="filter", placeholder="words to look for; Enter keeps them, Escape shows all")
        yield Footer()

    def on_mount(self) -> None:
        self.screen.set_focus(self.query_one("#groups"))
        self.run_worker(self._follow(), exit_on_error=False)
        self.set_interval(1.0, self.redraw)
        self.redraw()

    async def _follow(self) -> None:
        try:
            await self.feed.follow()
        except* HasysError as several:
            self.failure = several.exceptions[0]
            self.exit()

    # -- showing

    def _redraw_soon(self) -> None:
        """Once for everything that is heard until then."""
        if not self._due:
            self._due = True
            self.call_later(self.redraw)

    def redraw(self) -> None:
        """Show the picture as it is now."""
        self._due = False
        if not self.is_running or not self._screen_stack:
            return
        base = self.screen_stack[0]
        for panel in COLUMNS:
            for table in base.query(f"#{panel}").results(Table):
                made = rows(self.feed.picture, panel, self._words)
                table.display = panel != "monitors" or bool(made)
                table.show(made)
        for line in base.query("#headline").results(Static):
            line.update(self._headline())
        if isinstance(self.screen, DetailScreen) and self.screen.is_mounted:
            self.screen.redraw()

    def _headline(self) -> str:
        filtered = f"  [only: {self._words}]" if self._words else ""
        return headline(self.feed.picture, asyncio.get_running_loop().time() - self.feed.heard) + filtered

    def _say(self, text: str) -> None:
        self.screen_stack[0].query_one("#note", Static).update(text)

    # -- keys

    @property
    def subject(self) -> Subject | None:
        """What the chosen line is about."""
        table = self.focused
        if not isinstance(table, Table) or table.chosen is None:
            return None
        return Subject(table.panel, table.chosen)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only the keys that say something about the chosen line are shown, and only on the tables' own screen."""
        if action not in ("offer", "filter"):
            return True
        if len(self._screen_stack) != 1:
            return False
        if action == "filter":
            return not isinstance(self.focused, Input)
        panels = {c.key: c.panel for c in COMMANDS}
        return isinstance(self.focused, Table) and self.focused.panel == panels[str(parameters[0])]

    def on_descendant_focus(self) -> None:
        self.refresh_bindings()

    def on_data_table_row_selected(self) -> None:
        """Enter."""
        subject = self.subject
        if subject is not None:
            self.push_screen(DetailScreen(self._headline, lambda: details(self.feed.picture, subject)))

    def action_offer(self, key: str) -> None:
        made = offer(self.feed.picture, key, self.subject)
        if isinstance(made, Offer):
            self.push_screen(AskScreen(made), self._answered)
        else:
            self._say(made)

    def _answered(self, spec: pb.OperationSpec | None) -> None:
        if spec is None:
            self._say("not confirmed: nothing was done")
        else:
            self.run_worker(self._carry_out(spec), exit_on_error=False)

    async def _carry_out(self, spec: pb.OperationSpec) -> None:
        self._say(f"{title(spec)} ...")
        try:
            with telling(spec):
                self._say(outcome(spec, await run_operation(self._cluster, spec, _TIMEOUT)))
        except HasysError as error:
            self._say(str(error))

    def action_filter(self) -> None:
        words = self.query_one("#filter", Input)
        words.add_class("shown")
        self.screen.set_focus(words)  # at once: the next key is for it

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "filter":
            self._words = event.value
            self.redraw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.input.id == "filter":
            self._end_filter()

    def on_key(self, event: object) -> None:
        if getattr(event, "key", "") == "escape" and len(self.screen_stack) == 1:
            self.query_one("#filter", Input).value = ""
            self._end_filter()

    def _end_filter(self) -> None:
        self.query_one("#filter").remove_class("shown")
        self.screen.set_focus(self.query_one("#groups"))
