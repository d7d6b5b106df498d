"""Writes the reference pages that come from tables in the code; ``--check`` fails when one is stale."""

from __future__ import annotations

import sys
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from hasys.api.kinds import KINDS
from hasys.api.rules import Field, fields_of, shorthand_of, unions_of
from hasys.model.events import CATALOGUE
from hasys.placement.policy import TABLE, Policy, Situation
from hasys.telemetry.metrics import TABLE as METRICS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a script, it finds its neighbours too
from tools import decisions  # noqa: E402

PAGES = ROOT / "docs" / "reference"
MADE = "<!-- made by tools/reference.py: change the table in the code, then run it -->\n"


def placement() -> str:
    """The role table."""
    lines = [
        "# What moves a group by itself",
        "",
        MADE,
        "What happens to a group, given how its node stands and what the operator allows",
        "(`hasys/placement/policy.py`). The first situation that applies counts, from the top.",
        "Operators' commands act beside this table: neither Manual nor a pause holds them up.",
        "",
        "| situation | " + " | ".join(f"{policy}" for policy in Policy) + " |",
        "|---|" + "---|" * len(Policy),
    ]
    for situation in Situation:
        outcomes = " | ".join(str(TABLE[situation, policy]) for policy in Policy)
        lines.append(f"| {situation} | {outcomes} |")
    return "\n".join(lines) + "\n"


def events() -> str:
    """The catalogue of event reasons."""
    lines = [
        "# Events",
        "",
        MADE,
        "Every event names its cause, who caused it (`actor`), the epoch of the group and the node. Its time is that of the",
        "leader's clock (`clock` names the leader), also for what other nodes report: they say how long ago it was.",
        "A duration that began before the present leader led counts from the beginning of its leadership.",
        "Normal needs nobody; Warning was dealt with, or costs redundancy; Critical needs an operator.",
        "",
        "| reason | grade | text | meaning | what to do | its duration |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.name} | {r.grade} | `{r.template}` | {r.meaning} | {r.action} | {r.took} |" for r in CATALOGUE.values()
    ]
    return "\n".join(lines) + "\n"


def metrics() -> str:
    """The table of metrics."""
    lines = [
        "# Metrics",
        "",
        MADE,
        "What `hasys telemetry` exports ([telemetry](../telemetry.md)), to Prometheus and by OTLP, under the same names.",
        "Every exporter tells the whole cluster: with several of them take the maximum over `instance`.",
        "Histograms have `_bucket`, `_sum` and `_count` in Prometheus.",
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    lines += [f"| {m.name} | {m.kind} | {', '.join(m.labels)} | {m.meaning} |" for m in METRICS]
    return "\n".join(lines) + "\n"


def manifests() -> str:
    """Fields of everything that users write, from the schema."""
    lines = [
        "# Manifests: every field",
        "",
        MADE,
        "From the schema (`proto/hasys/v1/objects.proto`) and its rules. Every object also has `apiVersion: hasys/v1`,",
        "`kind`, `metadata.name`, for resources `metadata.group`, and optional `metadata.labels`. Durations are written",
        "`500ms`, `1.5s`, `2m`, `1h`. With `metadata.resourceVersion` an object is written only if it still has that",
        "version. Unknown fields, wrong types, aliases and repeated keys are refused, each with file, line and field.",
        "",
    ]
    for kind in KINDS.values():
        if kind.applied:
            spec = kind.message.DESCRIPTOR.fields_by_name["spec"].message_type
            assert isinstance(spec, Descriptor), f"{kind.name} has no spec"
            lines += [f"## {kind.name}", "", "| field | value | default | rule |", "|---|---|---|---|"]
            lines += [*_rows(spec, "spec"), ""]
            lines += [f"{text}\n" for text in _unions(spec, "spec")]
    return "\n".join(lines).rstrip("\n") + "\n"


def _rows(message: Descriptor, path: str) -> list[str]:
    rows = []
    for field in fields_of(message):
        here = f"{path}.{field.spelling}" + ("[]" if field.repeated and not field.map else "")
        default = field.rule.default_value if field.rule.default_value != "{}" else ""
        rows.append(f"| `{here}` | {_type(field)} | {f'`{default}`' if default else ''} | {_rule(field)} |")
        if field.message is not None and not shorthand_of(field.message)[0]:
            rows += _rows(field.message, here)
    return rows


def _type(field: Field) -> str:
    if field.message is not None and shorthand_of(field.message)[0]:
        return "text, or a mapping node: text"
    if field.duration:
        return "duration"
    if field.message is not None:
        return "mapping"
    if field.descriptor.enum_type is not None:
        return " or ".join(one.name for one in field.descriptor.enum_type.values)
    kind = {FieldDescriptor.TYPE_STRING: "text", FieldDescriptor.TYPE_BOOL: "true or false"}
    return "mapping of text" if field.map else kind.get(field.descriptor.type, "whole number")


def _rule(field: Field) -> str:
    rule, parts = field.rule, []
    if rule.required or rule.min_items:
        parts.append("required")
    if rule.immutable:
        parts.append("never changes")
    if field.form is not None:
        parts.append((field.form.__doc__ or "").rstrip("."))
    if field.key_form is not None:
        parts.append("keys: " + (field.key_form.__doc__ or "").rstrip("."))
    if rule.has_minimum or rule.has_maximum:
        parts.append(f"{rule.minimum} to {rule.maximum}")
    if rule.min_duration or rule.max_duration:
        parts.append(f"{rule.min_duration} to {rule.max_duration}")
    if rule.max_length:
        parts.append(f"at most {rule.max_length}")
    return "; ".join(parts)


def _unions(message: Descriptor, path: str) -> list[str]:
    spellings = {field.name: field.spelling for field in fields_of(message)}
    return [
        f"{'Exactly' if required else 'At most'} one of "
        + ", ".join(f"`{path}.{spellings[name]}`" for name in names)
        + "."
        for names, required in unions_of(message)
    ]


def main() -> int:
    """Write or check every page."""
    stale = []
    pages = {
        "placement.md": placement(),
        "decisions.md": decisions.page(MADE),
        "events.md": events(),
        "metrics.md": metrics(),
        "manifests.md": manifests(),
    }
    for name, text in pages.items():
        page = PAGES / name
        if "--check" in sys.argv:
            if not page.exists() or page.read_text() != text:
                stale.append(name)
        else:
            PAGES.mkdir(parents=True, exist_ok=True)
            page.write_text(text)
    for name in stale:
        print(f"docs/reference/{name} is stale: run python tools/reference.py", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
