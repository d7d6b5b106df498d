"""From status and events to OpenTelemetry: the only module that knows its SDK.

Reading the status costs the leader something, so it is read when somebody asks: at a scrape, and once per interval of
OTLP. Events are followed all the time, which costs nothing while nothing happens.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator

from hasys.api.timeline import Timeline
from hasys.telemetry.metrics import DETECTIONS, EVENTS, FAILOVERS, TABLE, UP, Kind, Metric
from hasys.telemetry.traces import Span, spans_of, spans_of_reconcile
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb

log = logging.getLogger("hasys.telemetry")

BUCKETS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds in seconds of the histograms."""
SERIES = 100_000
"""Most series of one metric: 256 groups on 100 nodes fit."""
LIMITS: dict[type[Any], int] = dict.fromkeys(
    (sdk.ObservableGauge, sdk.ObservableCounter, sdk.Counter, sdk.Histogram), SERIES
)


def otlp_metrics(endpoint: str) -> MetricReader:
    """A reader that sends when it is flushed, never by itself."""
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    exporter = OTLPMetricExporter(endpoint=endpoint)
    return PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)


def otlp_spans(endpoint: str) -> SpanExporter:
    """Sends spans."""
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=endpoint)


def prometheus() -> tuple[MetricReader, Callable[[], bytes]]:
    """A reader, and the page that Prometheus reads."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    reader = PrometheusMetricReader(
        disable_target_info=True, scope_info_enabled=False, registry=registry, cardinality_limits=LIMITS
    )
    return reader, lambda: generate_latest(registry)


class Exporter:
    """Instruments of the table and the tracer. ``status`` is what the next reading shows."""

    def __init__(
        self, cluster: str, node: str, version: str, readers: Iterable[MetricReader], spans: SpanExporter | None
    ) -> None:
        self.status: api.StatusResponse | None = None
        self._cluster = cluster
        resource = Resource.create({
            "service.name": "hasys", "service.namespace": cluster, "service.instance.id": node,
            "service.version": version,
        })  # fmt: skip
        views = [View(instrument_name="*_seconds", instrument_type=sdk.Histogram,
                      aggregation=ExplicitBucketHistogramAggregation(BUCKETS))]  # fmt: skip
        self._meters = MeterProvider(list(readers), resource=resource, views=views, shutdown_on_exit=False)
        meter = self._meters.get_meter("hasys", version)
        self._fed: dict[str, Any] = {}
        for metric in TABLE:
            if metric.kind is Kind.HISTOGRAM:
                self._fed[metric.name] = meter.create_histogram(metric.name, metric.unit, metric.meaning)
            elif metric is EVENTS:
                self._fed[metric.name] = meter.create_counter(metric.name, "", metric.meaning)
            else:
                make = meter.create_observable_gauge
                if metric.kind is Kind.COUNTER:
                    make = meter.create_observable_counter  # type: ignore[assignment]  # the same signature
                make(metric.name, [self._callback(metric)], metric.unit, metric.meaning)
        self._ids = _Derived()
        self._traces = TracerProvider(resource=resource, id_generator=self._ids, shutdown_on_exit=False)
        self._tracer = self._traces.get_tracer("hasys", version)
        self._sends = spans is not None
        if spans is not None:
            self._traces.add_span_processor(BatchSpanProcessor(spans))

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            status = self.status
            if metric is UP:
                return [Observation(float(status is not None))]
            if status is None or metric.read is None:
                return []
            return [Observation(value, dict(zip(metric.labels, labels, strict=True)))
                    for labels, value in metric.read(status)]  # fmt: skip

        return observe

    # ------------------------------------------------------------ what happened
    def count(self, event: pb.Event) -> None:
        """An event was recorded."""
        self._fed[EVENTS.name].add(1, {"type": event.type, "reason": event.reason})

    def moved(self, line: Timeline) -> None:
        """A group's move has ended."""
        what = {"group": line.group, "what": line.what}
        if line.ended is not None:
            self._fed[FAILOVERS.name].record(line.ended, {**what, "served": str(line.well).lower()})
        self._fed[DETECTIONS.name].record(line.decided, what)
        for span in spans_of(line, self._cluster) if self._sends else ():
            self._send(span)

    def reconciled(self, steps: Sequence[pb.Event]) -> None:
        """A node has done this for a group that stays where it is."""
        for span in spans_of_reconcile(steps, self._cluster) if self._sends else ():
            self._send(span)

    def _send(self, span: Span) -> None:
        self._ids.next = span.trace, span.id
        context = trace.set_span_in_context(trace.INVALID_SPAN)
        if span.parent:
            parent = trace.SpanContext(span.trace, span.parent, False, trace.TraceFlags(trace.TraceFlags.SAMPLED))
            context = trace.set_span_in_context(trace.NonRecordingSpan(parent))
        made = self._tracer.start_span(span.name, context, attributes=span.attributes, start_time=span.begin)
        for text, at in span.events:
            made.add_event(text, timestamp=at)
        if span.failed:
            made.set_status(trace.StatusCode.ERROR)
        made.end(span.end)

    # ------------------------------------------------------------ life
    def flush(self, seconds: float) -> None:
        """Send what is to be sent now. Blocks; an end that does not answer is a line in the log, nothing more."""
        with _only_logged():
            self._meters.force_flush(round(seconds * 1000))
        self._traces.force_flush(round(seconds * 1000))

    def close(self) -> None:
        """Send the rest and stop. Blocks; what cannot be sent is a line in the log."""
        with _only_logged():
            self._meters.shutdown(2_000)
        self._traces.shutdown()


@contextmanager
def _only_logged() -> Iterator[None]:
    """The SDK raises nothing narrower than ``Exception`` when a reader's time is over."""
    try:
        yield
    except Exception as e:
        log.warning("not everything was sent: %s", " ".join(str(e).split()))


class _Derived(IdGenerator):
    """Gives the ids that were derived for the span that is made now."""

    next: tuple[int, int] = (1, 1)

    def generate_trace_id(self) -> int:
        return self.next[0]

    def generate_span_id(self) -> int:
        return self.next[1]
