"""What examples/ shows is what 'hasys apply' takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hasys.api.kinds import KINDS
from hasys.api.manifest import load
from hasys.api.rules import fill_defaults
from hasys.api.validation import check_objects
from hasys.v1 import objects_pb2 as pb
from tests.unit.store.build import Log

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.fixture(scope="module")
def log() -> Log:
    """A cluster of the nodes that every example names."""
    log, objects = Log(), []
    for number, name in enumerate(("n1", "n2", "n3"), start=1):
        node = pb.Object()
        node.node.metadata.name = name
        node.node.spec.addresses.append(f"10.77.0.{number}")
        objects.append(node)
    cluster = pb.Object()
    cluster.cluster.metadata.name = "demo"
    log.must(*objects, cluster)
    return log


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_accepted_as_it_stands(path: Path, log: Log) -> None:
    objects = load([(path.name, path.read_text())]).objects
    for obj in objects:
        fill_defaults(obj)
    assert [f"{f.ref}: {f.field}: {f.message}" for f in check_objects(objects, log.machine)] == []


def test_every_kind_that_a_group_runs_has_an_example() -> None:
    text = "".join(path.read_text() for path in EXAMPLES)
    missing = [kind.name for kind in KINDS.values() if kind.grouped and f"kind: {kind.name}\n" not in text]
    assert missing == []
