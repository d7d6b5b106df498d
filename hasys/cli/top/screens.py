"""The screens above the tables: the page about one thing, and the question before an action."""

from __future__ import annotations

from collections.abc import Callable

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Input, OptionList, Static

from hasys.cli.top.offers import Offer
from hasys.v1 import objects_pb2 as pb


class DetailScreen(Screen[None]):
    """Live text about one line; Escape leads back."""

    BINDINGS = [Binding("escape,enter", "app.pop_screen", "Back"), Binding("q", "app.quit", "Quit")]  # noqa: RUF012

    def __init__(self, heading: Callable[[], str], text: Callable[[], str]) -> None:
        super().__init__()
        self._heading, self._text = heading, text

    def compose(self) -> ComposeResult:
        yield Static(id="headline", markup=False)
        with VerticalScroll(can_focus=True):
            yield Static(id="details", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.redraw()
        self.set_focus(self.query_one(VerticalScroll))

    def redraw(self) -> None:
        """Show what is known now."""
        self.query_one("#headline", Static).update(self._heading())
        self.query_one("#details", Static).update(self._text())


class AskScreen(ModalScreen[pb.OperationSpec | None]):
    """The question before an action: gives the operation, or nothing on a no."""

    BINDINGS = [Binding("escape", "no", "No, leave it", priority=True)]  # noqa: RUF012

    def __init__(self, offer: Offer) -> None:
        super().__init__()
        self._offer = offer
        self._chosen: pb.OperationSpec | None = None

    def compose(self) -> ComposeResult:
        with Vertical(id="ask"):
            yield Static(self._offer.question, markup=False, classes="question")
            if self._offer.warning:
                yield Static(self._offer.warning, markup=False, classes="warning")
            yield OptionList("No, leave it", *(f"Yes: {choice.label}" for choice in self._offer.choices), markup=False)
            if self._offer.typed:
                yield Input(placeholder=f"type {self._offer.typed} and Enter to confirm", id="typed")
            yield Static("Up/Down, Enter: choose    Escape: no", markup=False)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        choices.highlighted = 0
        self.set_focus(choices)

    def action_no(self) -> None:
        self.dismiss(None)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_index == 0:
            self.dismiss(None)
            return
        self._chosen = self._offer.choices[event.option_index - 1].spec
        if not self._offer.typed:
            self.dismiss(self._chosen)
            return
        typed = self.query_one(Input)
        typed.add_class("shown")
        self.set_focus(typed)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Anything but the very word is a no."""
        event.stop()
        self.dismiss(self._chosen if event.value.strip() == self._offer.typed else None)
