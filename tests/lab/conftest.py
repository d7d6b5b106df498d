"""Fixtures of the tests on a real kernel. They need root; without it they are skipped, saying so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hasys.lab.lab import Lab
from tests.lab.stage import VIP, Act, Stage, lab_or_skip, raise_stage

LONGEST_FIRST = (
    "failover_loss", "failover_processes", "systemd", "no_majority", "policies", "public_network", "two_nodes",
    "monitors", "shared_disk", "lab_demo", "processes", "member_change", "two_arbiter", "node_run", "conditions",
    "telemetry", "two_alone",
)  # fmt: skip
"""Files of more than a quarter of a minute: begun in this order, no worker has a long one left when the others end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files stay whole; only their order changes."""
    place = {f"test_{name}": number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture
def lab() -> Iterator[Lab]:
    """An empty lab (switch, client, observer) of this test's own."""
    with lab_or_skip() as made:
        yield made


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """One hasys cluster for all failover tests: what a fault leaves behind is the next test's to cope with."""
    yield from raise_stage()


@pytest.fixture
def act(stage: Stage) -> Iterator[Act]:
    """A settled stage; when the test is over: never were there two holders of the address."""
    active = stage.settle()
    stage.wait_holder(active)
    act = Act.begin(stage, active)
    yield act
    stage.watch.assert_never_two(act.since)
    assert stage.watch.asked(VIP, act.since), "the watcher did not watch"
