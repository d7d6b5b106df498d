"""The table of metrics: its names, what is read of a status, the page and the dashboard that come from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from hasys.telemetry.metrics import TABLE, Kind
from hasys.v1 import api_pb2 as api
from tests.unit.telemetry.sample import status

ROOT = Path(__file__).resolve().parents[3]
DASHBOARDS = sorted((ROOT / "examples" / "grafana").glob("*.json"))
BY_NAME = {metric.name: metric for metric in TABLE}


def read(name: str, of: api.StatusResponse) -> dict[tuple[str, ...], float]:
    metric = BY_NAME[name]
    assert metric.read is not None
    return dict(metric.read(of))


def test_names_are_those_of_the_field_and_unique() -> None:
    assert len(BY_NAME) == len(TABLE)
    assert [m.name for m in TABLE if not re.fullmatch(r"hasys_[a-z_]+", m.name)] == []
    assert [m.name for m in TABLE if (m.kind is Kind.COUNTER) is not m.name.endswith("_total")] == []


@pytest.mark.parametrize("metric", [m for m in TABLE if m.read is not None], ids=lambda m: m.name)
def test_every_figure_is_read_with_its_labels_and_nothing_is_made_up(metric: object) -> None:
    assert isinstance(metric, type(TABLE[0]))
    assert metric.read is not None
    found = list(metric.read(status()))
    assert found, "the sample has it"
    assert {len(labels) for labels, _ in found} == {len(metric.labels)}
    assert len({labels for labels, _ in found}) == len(found), "no series twice"
    empty = list(metric.read(api.StatusResponse()))
    assert empty in ([], [((), 0.0)])


def test_what_status_says_is_what_is_told() -> None:
    assert read("hasys_group_active", status()) == {("web", "n1"): 1.0, ("web", "n2"): 0.0}
    assert read("hasys_node_lease_remaining_seconds", status()) == {("n1",): 0.85}
    assert read("hasys_raft_commit_latency_seconds", status())["n2", "0.99"] == 0.01
    assert read("hasys_cluster_leader", status()) == {("n1",): 0.0, ("n2",): 1.0, ("w",): 0.0}
    assert read("hasys_monitor_value", status()) == {("web", "load", "n1", "%"): 12.5}
    assert read("hasys_node_cpu_ratio", status()) == {("n1",): 0.125}


def expressions(value: object) -> list[str]:
    """Every query of a dashboard, of panels and of variables."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k in ("expr", "query", "definition") and isinstance(v, str)]
        return own + [e for v in value.values() for e in expressions(v)]
    return [e for v in value for e in expressions(v)] if isinstance(value, list) else []


def known(name: str) -> bool:
    metric = BY_NAME.get(name)
    if metric is not None:
        return metric.kind is not Kind.HISTOGRAM
    base = BY_NAME.get(re.sub(r"_(bucket|sum|count)$", "", name))
    return base is not None and base.kind is Kind.HISTOGRAM


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda p: p.name)
def test_every_expression_of_the_dashboard_names_metrics_and_labels_that_exist(path: Path) -> None:
    found = [e for e in expressions(json.loads(path.read_text())) if "hasys" in e]
    assert len(found) > 10
    names = {name for e in found for name in re.findall(r"\bhasys_[a-z_]+", e)}
    assert [name for name in names if not known(name)] == []
    labels = {label for metric in TABLE for label in metric.labels} | {"le", "instance"}
    used = {label for e in found for label in re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", e)}
    used |= {label.strip() for e in found for by in re.findall(r"\bby\s*\(([^)]*)\)", e) for label in by.split(",")}
    assert sorted(used - labels) == []


def test_there_is_a_dashboard() -> None:
    assert [path.name for path in DASHBOARDS] == ["hasys.json"]
