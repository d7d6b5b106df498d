"""``telemetry`` of node.yaml: what it may ask for, and refusals that name the field and the mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hasys.model.telemetry import PORT, Telemetry, read


class Refused(Exception):
    """Field: why."""


def refuse(field: str, why: str) -> Any:
    raise Refused(f"{field}: {why}")


def of(raw: dict[str, Any], seconds: Callable[[Any], float] = lambda _: 15.0) -> Telemetry:
    return read(raw, refuse, seconds, "10.0.0.1")


def test_the_page_stands_on_the_nodes_first_address_unless_told_otherwise() -> None:
    assert of({"prometheus": None}) == Telemetry("10.0.0.1", PORT)
    assert of({"prometheus": {"address": "::1", "port": 9100}}) == Telemetry("::1", 9100)


def test_otlp_pushes_both_kinds_unless_told_otherwise() -> None:
    assert of({"otlp": {"endpoint": "http://10.0.0.9:4317"}}) == Telemetry(endpoint="http://10.0.0.9:4317")
    assert not of({"otlp": {"endpoint": "https://c:4317", "metrics": False}}).metrics


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({}, "telemetry: set prometheus, otlp or both"),
        ({"prometheus": 9100}, "telemetry.prometheus: expected a mapping"),
        ({"prometheus": {"adress": "::1"}}, "telemetry.prometheus.adress: unknown field; known are address, port"),
        ({"prometheus": {"address": "localhost"}}, "telemetry.prometheus.address: 'localhost' is no IP address"),
        ({"prometheus": {"port": True}}, "telemetry.prometheus.port: True is no port"),
        ({"otlp": {}}, "telemetry.otlp.endpoint: None: write it like http://"),
        ({"otlp": {"endpoint": "10.0.0.9:4317"}}, "telemetry.otlp.endpoint"),
        ({"otlp": {"endpoint": "http://c:x"}}, "telemetry.otlp.endpoint"),
        ({"otlp": {"endpoint": "http://c:1", "traces": "no"}}, "telemetry.otlp.traces: 'no': use true or false"),
        ({"otlp": {"endpoint": "http://c:1", "traces": False, "metrics": False}}, "telemetry.otlp: neither"),
    ],
)
def test_bad_settings_are_refused_with_field_and_mend(raw: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused) as error:
        of(raw)
    assert str(error.value).startswith(says)


def test_an_interval_outside_of_reason_is_refused() -> None:
    with pytest.raises(Refused, match=r"interval: use 1s to 3600s"):
        of({"otlp": {"endpoint": "http://c:1"}}, lambda _: 0.1)
