"""Two nodes without chance, for scripts: the rows of docs/two-nodes.md, whatever the policy."""

from __future__ import annotations

from typing import Any

from tests.sim.grants.arbiter import ArbiterNodes
from tests.sim.grants.state import Assign
from tests.sim.grants.tokens import TwoNodes


class Row(TwoNodes):
    """Policy safe: n1 serves ``web`` when the script begins."""

    def draw(self) -> None:
        super().draw()
        self.groups, self.lag, self.freezes, self.slow_disks = ("web",), 0.0, 0.0, False

    def wanted(self, store: Any, group: str) -> Any:
        return Assign(group, 0, "n1", True) if group not in store.state.groups else super().wanted(store, group)

    def begin(self) -> None:
        self.world.run(3.0)
        assert self.world.holder("web") == "n1"

    def always(self, node: str | None, seconds: float) -> None:
        """Who speaks, asked all the time."""
        end = self.world.now + seconds
        while self.world.now < end:
            self.world.run(self.world.now + 0.02)
            assert self.world.holder("web") == node

    def wait(self, seconds: float) -> str | None:
        """Who speaks then."""
        self.world.run(self.world.now + seconds)
        return self.world.holder("web")


class ArbiterRow(Row, ArbiterNodes):
    """Policy arbiter."""
