"""The real exporters: OTLP to a collector, and a scrape that Prometheus's own parser reads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from hasys.telemetry.exporter import Exporter, otlp_metrics, otlp_spans, prometheus
from hasys.telemetry.metrics import TABLE, Kind, Metric
from hasys.telemetry.traces import spans_of, trace_id
from hasys.v1 import objects_pb2 as pb
from tests.unit.api.test_timeline import event, failover, lost_node
from tests.unit.telemetry.collector import collecting
from tests.unit.telemetry.sample import status

LINE = failover(lost_node())


def filled(exporter: Exporter) -> None:
    exporter.status = status()
    exporter.count(pb.Event(type="Warning", reason="FailoverStarted"))
    exporter.moved(LINE)


def test_the_page_has_every_metric_of_the_table_under_its_name() -> None:
    reader, page = prometheus()
    exporter = Exporter("demo", "n1", "1", [reader], None)
    filled(exporter)
    families = {family.name: family for family in text_string_to_metric_families(page().decode())}
    exporter.close()
    assert sorted(families) == sorted(metric.name.removesuffix("_total") for metric in TABLE)
    for metric in TABLE:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind.value, metric.meaning)
        assert labels_of(family.samples, metric) <= {*metric.labels, "le"}


def labels_of(samples: Sequence[object], metric: Metric) -> set[str]:
    found = [set(sample.labels) for sample in samples]  # type: ignore[attr-defined]
    assert all(set(metric.labels) <= labels for labels in found)
    return set().union(*found)


def test_the_figures_of_the_page_are_those_of_the_status() -> None:
    reader, page = prometheus()
    exporter = Exporter("demo", "n1", "1", [reader], None)
    filled(exporter)
    samples = {
        (s.name, *sorted(s.labels.values())): s.value
        for family in text_string_to_metric_families(page().decode())
        for s in family.samples
    }
    exporter.close()
    assert samples["hasys_up",] == 1
    assert samples["hasys_group_active", "n1", "web"] == 1
    assert samples["hasys_raft_commits_total", "n2"] == 100
    assert samples["hasys_failover_duration_seconds_count", "failover", "true", "web"] == 1
    assert samples["hasys_failover_duration_seconds_sum", "failover", "true", "web"] == pytest.approx(1.2)
    assert samples["hasys_failover_duration_seconds_bucket", "1.25", "failover", "true", "web"] == 1
    assert samples["hasys_failover_duration_seconds_bucket", "1.0", "failover", "true", "web"] == 0


def test_without_an_answer_of_the_cluster_only_that_is_told() -> None:
    reader, page = prometheus()
    exporter = Exporter("demo", "n1", "1", [reader], None)
    assert page().decode().splitlines()[-1] == "hasys_up 0.0"
    exporter.close()


def test_otlp_brings_the_same_metrics_and_one_trace_to_the_collector() -> None:
    with collecting() as collector:
        spans = otlp_spans(collector.endpoint)
        exporter = Exporter("demo", "n1", "1", [otlp_metrics(collector.endpoint)], spans)
        filled(exporter)
        exporter.flush(10)
        exporter.close()
    told = collector.latest()
    assert sorted(told) == sorted(metric.name for metric in TABLE)
    assert {m.name for m in TABLE if m.kind is Kind.HISTOGRAM} == {
        n for n, m in told.items() if m.HasField("histogram")
    }
    resource = {a.key: a.value.string_value for a in collector.metrics[-1].resource_metrics[0].resource.attributes}
    assert (resource["service.namespace"], resource["service.instance.id"]) == ("demo", "n1")
    sent = {int.from_bytes(span.span_id, "big"): span for span in collector.spans()}
    wanted = {span.id: span for span in spans_of(LINE, "demo")}
    assert sent.keys() == wanted.keys()
    for number, span in sent.items():
        want = wanted[number]
        assert int.from_bytes(span.trace_id, "big") == trace_id("demo", "web", 2)
        assert int.from_bytes(span.parent_span_id, "big") == want.parent
        assert (span.name, span.start_time_unix_nano, span.end_time_unix_nano) == (want.name, want.begin, want.end)


def test_a_collector_that_is_not_there_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Exporter("demo", "n1", "1", [otlp_metrics("http://127.0.0.1:9")], None)
    filled(exporter)
    exporter.flush(0.2)
    exporter.close()
    assert exporter.status is not None


def test_a_flush_whose_time_is_over_before_the_figures_are_read_stops_nothing() -> None:
    exporter = Exporter("demo", "n1", "1", [otlp_metrics("http://127.0.0.1:9")], None)
    filled(exporter)
    exporter.flush(1e-9)
    exporter.close()


@pytest.mark.parametrize("module", ["hasys.guard.main", "hasys.store.main", "hasys.reconciler.main", "hasys.cli.main"])
def test_no_other_process_loads_any_of_it(module: str) -> None:
    search = f"import sys, {module}; print([m for m in sys.modules if m.startswith(('opentelemetry', 'prometheus'))])"
    found = subprocess.run([sys.executable, "-c", search], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_reconcile_is_sent_where_traces_are_wanted() -> None:
    kept = InMemorySpanExporter()
    exporter = Exporter("demo", "n1", "1", [], kept)
    exporter.reconciled([event("ResourceStarted", 5.0, about="web-app", took=0.5)])
    exporter.flush(10)
    exporter.close()
    assert sorted(span.name for span in kept.get_finished_spans()) == ["reconcile web on n2", "web-app starts"]
