"""Manifests: the contract's examples, every kind of fault with its line, round trips, and arbitrary input."""

from __future__ import annotations

import json
import textwrap

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.api.errors import Fault
from hasys.api.kinds import KINDS, Ref
from hasys.api.manifest import load, to_json, to_yaml
from hasys.api.rules import fill_defaults
from hasys.model.errors import Refused
from hasys.v1 import objects_pb2 as pb

CONTRACT = """\
apiVersion: hasys/v1
kind: Group
metadata: {name: web}
spec:
  mode: Mirror                       # Mirror: one Active. Farm: every node serves.
  nodes: [{name: n1, priority: 100}, {name: n2, priority: 50}]
  failover: {mode: Auto}             # Auto | Manual
---
apiVersion: hasys/v1
kind: VirtualIP
metadata: {name: web-ip, group: web}
spec: {address: 10.77.0.100/24, interface: eth0}      # interface may be per node: {n1: eth0, n2: ens3}
---
apiVersion: hasys/v1
kind: Application
metadata: {name: web-app, group: web}
spec:
  after: [web-ip]
  onStartFailure: Stop               # Stop | Continue
  run: {command: [python3, -m, http.server, "8080"], user: root, workingDirectory: /srv, env: {A: b}, stopTimeout: 5s}
  restart: {retries: 3, startTime: 2s, backoff: 1s}
---
apiVersion: hasys/v1
kind: Delay
metadata: {name: settle, group: web}
spec: {duration: 500ms, after: [web-ip]}
"""


def faults(text: str) -> list[str]:
    """What reading this text is refused with; fails when it is not."""
    with pytest.raises(Refused) as refused:
        load([("m.yaml", textwrap.dedent(text))])
    return str(refused.value).splitlines()


def group_with(spec: str) -> str:
    return f"apiVersion: hasys/v1\nkind: Group\nmetadata: {{name: web}}\nspec:\n  nodes: [{{name: n1}}]\n  {spec}\n"


def app_with(spec: str) -> str:
    return f"apiVersion: hasys/v1\nkind: Application\nmetadata: {{name: a, group: web}}\nspec:\n  {spec}\n"


def test_the_contracts_example_is_read() -> None:
    objects = load([("m.yaml", CONTRACT)]).objects
    group, vip, app, delay = objects
    assert [node.priority for node in group.group.spec.nodes] == [100, 50]
    assert vip.virtual_ip.spec.interface.name == "eth0"
    assert app.application.spec.run.command == ["python3", "-m", "http.server", "8080"]
    assert app.application.spec.restart.start_time.seconds == 2
    assert delay.delay.spec.duration.nanos == 500_000_000


def test_output_has_the_spelling_of_the_input_and_its_defaults() -> None:
    group, vip, app, delay = (to_json(obj) for obj in load([("m.yaml", CONTRACT)]).objects)
    assert group["spec"] == {
        "mode": "Mirror",
        "nodes": [{"name": "n1", "priority": 100}, {"name": "n2", "priority": 50}],
        "failover": {"mode": "Auto", "stopTimeout": "60s", "rebootFailedNode": False},
        "network": {"lost": "Any", "gateway": "Check"},
    }
    assert vip["spec"]["interface"] == "eth0"
    assert vip["spec"]["announceInterval"] == "30s"
    assert app["spec"]["restart"] == {"retries": 3, "startTime": "2s", "backoff": "1s"}
    assert app["spec"]["run"]["stopSignal"] == "SIGTERM"
    assert delay["spec"]["duration"] == "500ms"


def test_an_interface_may_be_a_mapping_and_comes_back_as_one() -> None:
    text = CONTRACT.replace("interface: eth0}", "interface: {n1: eth0, n2: ens3}}")
    vip = load([("m.yaml", text)]).objects[1]
    assert dict(vip.virtual_ip.spec.interface.per_node) == {"n1": "eth0", "n2": "ens3"}
    assert to_json(vip)["spec"]["interface"] == {"n1": "eth0", "n2": "ens3"}


def test_what_get_prints_can_be_applied_again() -> None:
    obj = load([("m.yaml", CONTRACT)]).objects[1]
    obj.virtual_ip.metadata.uid = "5-0"
    obj.virtual_ip.metadata.generation = 3
    obj.virtual_ip.metadata.resource_version = 17
    obj.virtual_ip.metadata.created.seconds = 1_700_000_000
    obj.virtual_ip.status.CopyFrom(pb.ResourceStatus(node="n1", epoch=2, state="Running"))
    read = load([("m.yaml", to_yaml(obj))]).objects[0].virtual_ip
    assert read.metadata.resource_version == 17
    assert not read.metadata.uid
    assert not read.HasField("status")
    as_json = load([("m.json", json.dumps(to_json(obj)))]).objects[0].virtual_ip
    assert as_json == read


def test_status_and_times_are_printed_as_scripts_expect() -> None:
    obj = load([("m.yaml", CONTRACT)]).objects[1]
    obj.virtual_ip.metadata.created.FromMilliseconds(1_700_000_000_123)
    obj.virtual_ip.status.CopyFrom(pb.ResourceStatus(node="n1", epoch=2**63, state="Running"))
    data = to_json(obj)
    assert data["metadata"]["created"] == "2023-11-14T22:13:20.123Z"
    assert data["status"]["epoch"] == 2**63
    assert isinstance(data["status"]["epoch"], int)
    assert "status" not in to_json(obj, status=False)


def test_a_list_of_objects_is_read_like_its_items() -> None:
    items = [to_json(obj) for obj in load([("m.yaml", CONTRACT)]).objects]
    text = json.dumps({"apiVersion": "hasys/v1", "kind": "List", "items": items})
    assert len(load([("m.json", text)]).objects) == 4


def test_zero_is_not_a_missing_number() -> None:
    obj = load([("m.yaml", app_with("run: {command: [x]}\n  restart: {retries: 0}"))]).objects[0]
    assert to_json(obj)["spec"]["restart"]["retries"] == 0


# ---------------------------------------------------------------- faults


RUN = "run: {command: [x]}"
FAULTS = [
    (group_with("mod: Mirror"), "6: spec.mod: unknown field; did you mean 'mode'?"),
    (group_with("mode: mirror"), "6: spec.mode: 'mirror' is unknown: use one of Mirror, Farm"),
    (group_with("failover: {stopTimeout: 5}"), "6: spec.failover.stopTimeout: '5' has no unit: write 5s or 5ms"),
    (
        group_with("failover: {stopTimeout: 1 s}"),
        "6: spec.failover.stopTimeout: '1 s' is no duration: write it like 500ms, 1.5s, 2m or 1h",
    ),
    (group_with("failover: {stopTimeout: 2h}"), "6: spec.failover.stopTimeout: 2h is too long: at most 1h"),
    (group_with("failover: [1]"), "6: spec.failover: expected a mapping, got a list"),
    (group_with("nodes: []"), "6: spec.nodes: is given twice: take one out"),
    (app_with(f"after: ip\n  {RUN}"), "5: spec.after: expected a list, got 'ip': write [ip]"),
    (
        app_with("run: {command: [x, 80]}"),
        '5: spec.run.command[1]: expected text, got the number 80: write "80" in quotes',
    ),
    (
        app_with("run: {command: [x], env: {A: true}}"),
        '5: spec.run.env.A: expected text, got true: write "true" in quotes',
    ),
    (
        app_with(f"{RUN}\n  restart: {{retries: many}}"),
        "6: spec.restart.retries: expected a whole number, got 'many'",
    ),
    (app_with(f"{RUN}\n  restart: {{retries: 100}}"), "6: spec.restart.retries: 100 is too large: at most 99"),
    (app_with(f"{RUN}\n  restart: {{retries: -1}}"), "6: spec.restart.retries: -1 is out of range: 0 to 4294967295"),
    (
        CONTRACT.split("---\n")[1].replace("eth0}  ", "abcdefghijklmnopq}  "),
        "4: spec.interface: 'abcdefghijklmnopq' is no interface name: 1 to 15 characters, no '/' and no white space",
    ),
    (
        CONTRACT.split("---\n")[1].replace("eth0}  ", "{n1: abcdefghijklmnopq}}  "),
        "4: spec.interface.n1: 'abcdefghijklmnopq' is no interface name: 1 to 15 characters, no '/' and no white space",
    ),
    (app_with("run: {command: []}"), "5: spec.run.command: must have at least 1 item"),
    (app_with("run: {command: [x], user: 'a b'}"), "5: spec.run.user: 'a b' is no user name or uid"),
    (
        app_with("run: {command: [x], workingDirectory: srv}"),
        "5: spec.run.workingDirectory: 'srv' is no absolute path: begin with '/'",
    ),
    (
        app_with("run: {command: [x], stopSignal: HUPP}"),
        "5: spec.run.stopSignal: 'HUPP' is no signal: write it like SIGTERM, TERM or 15",
    ),
    (app_with(f"{RUN}\n  start: {{command: [y]}}"), "4: spec: has both run and start: give one of them"),
    (app_with(f"{RUN}\n  stop: {{command: [y]}}"), "4: spec: has both run and stop: give one of them"),
    (app_with("after: []"), "4: spec: must have one of run or start"),
    (app_with('"a\\nb": 1'), "5: spec.a\\nb: unknown field"),
    ("a: 1", "1: apiVersion: is missing: write hasys/v1"),
    (
        "apiVersion: hasys/v1\nkind: Foo",
        "2: kind: 'Foo' is unknown: use one of " + ", ".join(kind.name for kind in KINDS.values() if kind.applied),
    ),
    ("- 1", "1: expected an object with apiVersion, kind, metadata and spec"),
    ("a: &x [1]\nb: *x", "2: aliases (*name) are not supported: write the value out"),
    ("a: !!binary x", "1: the tag tag:yaml.org,2002:binary is not supported: take it out"),
    ("a: [", "2: no YAML: did not find expected node content"),
    ("? {a: b}\n: c", "1: a key must be plain text"),
    ("", " no object in it"),
    ("# nothing\n---\n", " no object in it"),
    (
        "apiVersion: hasys/v1\nkind: Operation\nmetadata: {name: x}",
        "1: kind: operations are written by hasys itself: they cannot be applied",
    ),
]


@pytest.mark.parametrize(("text", "expected"), FAULTS)
def test_a_fault_is_told_with_file_line_field_and_mend(text: str, expected: str) -> None:
    assert [line for line in faults(text) if line.startswith(f"m.yaml:{expected}")]


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1", "10.0.0.0/24", "10.0.0.255/24", "10.0.0.1/33", "::1/128", "x", "0.0.0.0/0", "224.0.0.1/24",
        "fe80::1%eth0/64", "10.0.0.1/255.255.255.0",
    ],
)  # fmt: skip
def test_an_address_that_no_node_can_take_is_refused(address: str) -> None:
    text = CONTRACT.split("---\n")[1].replace("10.77.0.100/24", f"'{address}'")
    (fault,) = faults(text)
    assert fault.startswith("m.yaml:4: spec.address: ")


def test_all_faults_of_all_files_come_at_once_in_the_order_of_lines() -> None:
    with pytest.raises(Refused) as refused:
        load(
            [("a.yaml", group_with("mode: x\n  failover: {mode: y}")), ("b.yaml", "kind: Group"), ("c.yaml", CONTRACT)]
        )
    starts = [line.split(": ")[0:2] for line in str(refused.value).splitlines()]
    assert starts == [["a.yaml:6", "spec.mode"], ["a.yaml:7", "spec.failover.mode"], ["b.yaml:1", "apiVersion"]]


def test_the_same_object_twice_is_refused_naming_the_first() -> None:
    with pytest.raises(Refused, match=r"b\.yaml:3: metadata\.name: Group/web was given at a\.yaml:1 already"):
        load([("a.yaml", CONTRACT), ("b.yaml", group_with("mode: Mirror"))])


def test_faults_of_the_server_are_placed_where_they_were_written() -> None:
    manifests = load([("m.yaml", CONTRACT)])
    assert (
        manifests.where(Fault(Ref("Group", "", "web"), "spec.nodes[1].name", "x")) == "m.yaml:6: spec.nodes[1].name: x"
    )
    assert manifests.where(Fault(Ref("Delay", "web", "settle"), "spec.after", "x")) == "m.yaml:26: spec.after: x"
    assert manifests.where(Fault(Ref("Delay", "web", "other"), "spec.after", "x")) == "Delay/other: spec.after: x"


@pytest.mark.parametrize(
    "bomb",
    ["[" * 10_000, "{a: " * 10_000, "- " * 10_000, "a: &a [" + "x," * 10 + "]\n" + "b: *a\n" * 10, "x" * 5_000_000],
    ids=["lists", "mappings", "dashes", "aliases", "long"],
)
def test_bombs_are_refused_quickly(bomb: str) -> None:
    with pytest.raises(Refused):
        load([("m.yaml", bomb)])


@pytest.mark.parametrize("text", ["08", "1e5", "1_000", "0x1f", "true", "null", "~", "", ".5", "yes", "on", "12:30"])
def test_text_that_looks_like_something_else_comes_back_as_text(text: str) -> None:
    obj = load([("m.yaml", app_with(RUN))]).objects[0]
    obj.application.spec.run.env["A"] = text
    assert load([("m.yaml", to_yaml(obj))]).objects[0].application.spec.run.env["A"] == text


# ---------------------------------------------------------------- properties

labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
durations = st.integers(100_000_000, 3_600_000_000_000)


@st.composite
def applications(draw: st.DrawFn) -> pb.Object:
    """Any application that the rules allow."""
    obj = pb.Object()
    app = obj.application
    app.metadata.name, app.metadata.group = draw(labels), draw(labels)
    app.metadata.labels.update(draw(st.dictionaries(labels, texts, max_size=3)))
    app.spec.after.extend(draw(st.lists(labels, max_size=3)))
    app.spec.on_start_failure = draw(st.sampled_from([pb.Stop, pb.Continue]))
    app.spec.run.command.extend(draw(st.lists(texts, min_size=1, max_size=4)))
    app.spec.run.env.update(draw(st.dictionaries(st.from_regex(r"[A-Z_]{1,8}", fullmatch=True), texts, max_size=3)))
    app.spec.run.stop_timeout.FromNanoseconds(draw(durations))
    app.spec.restart.retries = draw(st.integers(0, 99))
    app.spec.restart.backoff.FromNanoseconds(draw(durations))
    fill_defaults(app.spec)
    return obj


@settings(max_examples=150, deadline=None)
@given(applications())
def test_reading_what_was_printed_gives_the_same_object(obj: pb.Object) -> None:
    assert load([("m.yaml", to_yaml(obj))]).objects == [obj]


def lines_of_refusal(text: str) -> list[str]:
    """Nothing when the text is read."""
    try:
        load([("m.yaml", text)])
    except Refused as refused:
        return str(refused).splitlines()
    return []


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_arbitrary_text_is_refused_or_read_and_never_anything_else(text: str) -> None:
    assert all(line.startswith("m.yaml:") for line in lines_of_refusal(text))


values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    "name", "group", "labels", "after", "run", "start", "restart", "command", "env", "address", "interface", "nodes",
    "mode", "duration", "priority", "retries", "spec", "status", "failover", "stopTimeout",
]  # fmt: skip
shaped = st.recursive(
    values,
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=4) | st.lists(inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["Group", "VirtualIP", "Application", "Delay", "Cluster", "Event", "List"]), shaped, shaped)
def test_wrong_shapes_are_refused_with_file_and_line(kind: str, metadata: object, spec: object) -> None:
    text = yaml.safe_dump({"apiVersion": "hasys/v1", "kind": kind, "metadata": metadata, "spec": spec})
    assert all(line.startswith(("m.yaml:", "... and")) for line in lines_of_refusal(text))
