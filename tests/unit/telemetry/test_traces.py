"""One trace per failover: ids that every exporter derives alike, spans that lie within their parents."""

from __future__ import annotations

from hasys.telemetry.traces import span_id, spans_of, spans_of_reconcile, trace_id
from tests.unit.api.test_timeline import event, failover, lost_node


def test_trace_ids_come_from_cluster_group_and_epoch_alone() -> None:
    assert trace_id("demo", "web", 2) == trace_id("demo", "web", 2)
    others = {trace_id(*key) for key in (("demo", "web", 3), ("demo", "db", 2), ("prod", "web", 2))}
    assert len(others | {trace_id("demo", "web", 2)}) == 4
    assert 0 < trace_id("demo", "web", 2) < 2**128
    assert 0 < span_id(1, "x") < 2**64


def test_two_exporters_tell_the_same_trace() -> None:
    assert spans_of(failover(lost_node()), "demo") == spans_of(failover(lost_node()[::-1]), "demo")


def test_the_spans_are_the_parts_of_the_failover_within_their_parents() -> None:
    spans = spans_of(failover(lost_node()), "demo")
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans)
    assert {span.trace for span in spans} == {trace_id("demo", "web", 2)}
    assert [(span.name, by_id[span.parent].name if span.parent else "") for span in spans] == [
        ("failover web", ""),
        ("detect", "failover web"),
        ("wait for the lease", "failover web"),
        ("reconcile on n2", "failover web"),
        ("web-ip starts", "reconcile on n2"),
    ]
    for span in spans:
        parent = by_id.get(span.parent, span)
        assert parent.begin <= span.begin <= span.end <= parent.end
    assert "granted: the lease of n1 is over" in [text for text, _ in spans[0].events]


def test_a_reconcile_without_a_move_is_a_trace_of_its_own_with_its_cause_and_a_span_for_each_start() -> None:
    steps = [
        event("ResourceRestarted", 90.0, about="web-app", cause="exit status 1"),
        event("ResourceStarted", 91.0, about="web-app", took=0.8),
    ]
    root, start = spans_of_reconcile(steps, "demo")
    assert (root.name, root.parent, root.failed) == ("reconcile web on n2", 0, False)
    assert root.attributes["hasys.cause"] == "exit status 1"
    assert root.events == (("web-app is restarted: exit status 1", root.begin),)
    assert (start.name, start.parent, start.trace) == ("web-app starts", root.id, root.trace)
    assert (start.end - start.begin, root.end) == (800_000_000, start.end)
    assert root.trace not in (trace_id("demo", "web", 2), spans_of_reconcile(steps[1:], "demo")[0].trace)
    assert spans_of_reconcile(steps, "demo") == [root, start]


def test_a_reconcile_that_ends_in_a_failure_says_so() -> None:
    (root,) = spans_of_reconcile([event("ResourceFailed", 5.0, about="web-app", cause="exit status 1")], "demo")
    assert root.failed
    assert root.begin == root.end
