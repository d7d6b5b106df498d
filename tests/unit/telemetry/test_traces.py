"""One trace per failover: ids that every exporter derives alike, spans that lie within their parents."""

from __future__ import annotations

from hasys.telemetry.traces import span_id, spans_of, trace_id
from tests.unit.api.test_timeline import failover, lost_node


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
