"""Who had a group before and is not proven to be out stays recorded, and nobody else does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hasys.model.view import Assignment

NODES = ("n1", "n2", "n3", "n4")
MOVES = st.lists(st.tuples(st.sampled_from((*NODES, "")), st.booleans(), st.sets(st.sampled_from(NODES))), max_size=30)


def test_the_holder_before_the_last_stays_recorded_until_it_is_out() -> None:
    twice = Assignment("n1", 1).moved("n2", "lost", revoke=True).moved("n3", "lost", revoke=True)
    assert twice.before == (("n2", 2), ("n1", 1))
    assert twice.let_go(frozenset({"n1", "n2"})) == twice
    assert twice.let_go(frozenset({"n2"})).before == (("n2", 2),)
    assert twice.let_go(frozenset({"n1"})).before == (("n1", 1),)
    assert twice.let_go(frozenset()).before == ()


def test_a_group_that_nobody_has_still_says_who_had_it() -> None:
    stopped = Assignment("n1", 1).moved("", "drained", revoke=False)
    placed = stopped.moved("n2", "no node had it", revoke=False)
    assert placed.before == (("n1", 1),)
    assert placed.revoked, "it gets no more grants"


def test_who_takes_the_place_of_the_previous_holder_may_not_stop_in_order() -> None:
    moving = Assignment("n1", 1).moved("n2", "lost", revoke=True).moved("n3", "switchover", revoke=False)
    assert not moving.let_go(frozenset({"n1", "n2"})).revoked
    left = moving.let_go(frozenset({"n1"}))
    assert (left.previous_node, left.previous_epoch, left.revoked, left.earlier) == ("n1", 1, True, ())


@given(MOVES)
def test_the_record_never_grows_beyond_the_nodes_and_forgets_nobody_who_may_hold_it(
    moves: list[tuple[str, bool, set[str]]],
) -> None:
    a, may_hold = Assignment(), set[str]()
    for node, revoke, proven_out in moves:
        a = a.moved(node, "test", revoke=revoke or node == a.node)
        may_hold |= {node} - {""}
        may_hold -= proven_out - {node}
        a = a.let_go(may_hold)
        before = dict(a.before)
        assert set(before) == may_hold - {a.node}
        assert len(before) == len(a.before) < len(NODES) + (not a.node)
        assert all(epoch < a.epoch for epoch in before.values())
        assert a.previous_node or not a.earlier, "the state machine looks at the previous holder alone"
