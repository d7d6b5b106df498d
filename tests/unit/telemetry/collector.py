"""An OTLP collector in this process: the real gRPC services of opentelemetry-proto, which keep what they are sent."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.metrics.append(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.traces.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class Collector:
    """What came, in order."""

    def __init__(self) -> None:
        self.metrics: list[Any] = []
        self.traces: list[Any] = []
        self.endpoint = ""

    def latest(self) -> dict[str, Any]:
        """The metrics of the last export, by name."""
        return {m.name: m for r in self.metrics[-1].resource_metrics for s in r.scope_metrics for m in s.metrics}

    def spans(self) -> list[Any]:
        return [s for t in self.traces for r in t.resource_spans for scope in r.scope_spans for s in scope.spans]


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of the loopback interface."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    register: Any = metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server  # untyped
    register(_Metrics(collector), server)
    register = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(_Traces(collector), server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()
