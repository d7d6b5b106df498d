"""Metrics and traces for others: a process of its own, ``hasys telemetry run``, only where node.yaml asks for it.

It is a client of the API like any other: store, agent and guard know nothing of OpenTelemetry, carry none of its
weight, and do not notice when this process dies. Every exporter tells the whole cluster, so one that is left is enough;
what two tell is told under the same names and ids (docs/telemetry.md).
"""
