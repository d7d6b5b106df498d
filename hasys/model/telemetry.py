"""What node.yaml asks of ``hasys telemetry``, and what is wrong with it. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PORT = 7414
"""Of the page for Prometheus."""
LEAST, MOST = 1.0, 3600.0
"""Seconds between two pushes."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """At least one of the page and the endpoint is set."""

    address: str = ""
    port: int = 0
    """Of the page for Prometheus; 0: there is none."""
    endpoint: str = ""
    """URL of the OTLP (gRPC) collector; empty: nothing is pushed."""
    interval: float = 15.0
    """Seconds between two pushes of metrics."""
    metrics: bool = True
    traces: bool = True
    """What is pushed."""


Refuse = Callable[[str, str], Any]
"""Field and why; raises."""


def read(raw: Mapping[str, Any], refuse: Refuse, seconds: Callable[[Mapping[str, Any]], float], own: str) -> Telemetry:
    """The checked content of ``telemetry``. ``seconds`` reads ``otlp.interval``; ``own``: the node's first address."""
    parts = {}
    for name in ("prometheus", "otlp"):
        value = raw.get(name)
        if name in raw and value is not None and not isinstance(value, dict):
            refuse(f"telemetry.{name}", "expected a mapping")
        if name in raw:
            parts[name] = value or {}
    if not parts:
        refuse("telemetry", "set prometheus, otlp or both, or leave it out")
    page, otlp = parts.get("prometheus"), parts.get("otlp")
    return Telemetry(
        **(_page(page, refuse, own) if page is not None else {}),
        **(_otlp(otlp, refuse, seconds) if otlp is not None else {}),
    )


def _page(raw: Mapping[str, Any], refuse: Refuse, own: str) -> dict[str, Any]:
    _known("telemetry.prometheus", raw, ("address", "port"), refuse)
    address, port = raw.get("address", own), raw.get("port", PORT)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        refuse("telemetry.prometheus.address", f"{address!r} is no IP address")
    if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
        refuse("telemetry.prometheus.port", f"{port!r} is no port: use 1 to 65535")
    return {"address": str(address), "port": port}


def _otlp(raw: Mapping[str, Any], refuse: Refuse, seconds: Callable[[Mapping[str, Any]], float]) -> dict[str, Any]:
    _known("telemetry.otlp", raw, ("endpoint", "interval", "metrics", "traces"), refuse)
    endpoint = raw.get("endpoint")
    try:
        parts = urlsplit(endpoint) if isinstance(endpoint, str) else None
        complete = parts is not None and parts.scheme in ("http", "https") and parts.hostname and parts.port
    except ValueError:
        complete = None
    if not complete:
        refuse("telemetry.otlp.endpoint", f"{endpoint!r}: write it like http://10.0.0.9:4317, or https://")
    interval = seconds(raw)
    if not LEAST <= interval <= MOST:
        refuse("telemetry.otlp.interval", f"use {LEAST:g}s to {MOST:g}s")
    for name in ("metrics", "traces"):
        if not isinstance(raw.get(name, True), bool):
            refuse(f"telemetry.otlp.{name}", f"{raw[name]!r}: use true or false")
    kinds = {name: raw.get(name, True) for name in ("metrics", "traces")}
    if not any(kinds.values()):
        refuse("telemetry.otlp", "neither metrics nor traces: leave it out")
    return {"endpoint": endpoint, "interval": interval, **kinds}


def _known(field: str, raw: Mapping[str, Any], known: tuple[str, ...], refuse: Refuse) -> None:
    for key in raw:
        if key not in known:
            refuse(f"{field}.{key}", f"unknown field; known are {', '.join(known)}")
