"""What the status says of resources whose node cannot be asked."""

from __future__ import annotations

import pytest

from hasys.model.view import NodeState
from hasys.placement.standing import Standing
from hasys.store.status import doubt
from hasys.v1 import api_pb2 as api

LOST = Standing(NodeState.LOST, "no keep-alive")


@pytest.mark.parametrize("node", [LOST, None], ids=["lost", "no leader to ask"])
@pytest.mark.parametrize(("message", "said"), [("", "Running as last reported"), ("x", "Running as last reported; x")])
def test_nothing_is_said_to_run_where_nobody_can_tell(node: Standing | None, message: str, said: str) -> None:
    told = api.ResourceView(state="Running", node="n1", message=message)
    doubt(told, node)
    assert (told.state, told.node, told.message) == ("Unknown", "n1", said)


@pytest.mark.parametrize("node", [LOST, None], ids=["lost", "no leader to ask"])
def test_what_had_stopped_is_still_stopped(node: Standing | None) -> None:
    told = api.ResourceView(state="Stopped")
    doubt(told, node)
    assert told.state == "Stopped"


def test_a_node_that_is_heard_is_believed() -> None:
    for state in (NodeState.READY, NodeState.NOT_READY, NodeState.DRAINED):
        told = api.ResourceView(state="Running", node="n1")
        doubt(told, Standing(state))
        assert told.state == "Running"
