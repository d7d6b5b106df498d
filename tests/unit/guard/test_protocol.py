"""The lines between agent and guard: everything of the protocol comes back as it was, everything else is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hasys.guard import protocol
from hasys.guard.protocol import (
    Address,
    AddressEntry,
    Alive,
    BadMessage,
    CgroupEntry,
    Gate,
    Hello,
    MountEntry,
    Networks,
    Permit,
    Plan,
    Release,
    Status,
    StoreAt,
    Stores,
    parse_request,
    request_to_json,
)
from hasys.model.networks import Fault, Trouble

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
numbers = st.integers(0, protocol.MAX_NUMBER)
interfaces = st.from_regex(r"[a-z][a-z0-9.-]{0,14}", fullmatch=True)
ips = st.ip_addresses().map(str)
paths = st.lists(names, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
entries = (
    st.builds(AddressEntry, interfaces, ips, names)
    | st.builds(CgroupEntry, paths, names)
    | st.builds(MountEntry, paths, paths, names)
)
plans = st.builds(Plan, names, numbers, numbers, st.lists(entries, max_size=5, unique=True).map(tuple))
gates = st.lists(st.builds(Address, interfaces, ips), max_size=5, unique=True).map(lambda a: Gate(tuple(sorted(a))))
stores = st.builds(StoreAt, names, st.lists(ips, min_size=1, max_size=3).map(tuple), st.integers(1, 65535))
store_lists = st.lists(stores, min_size=1, max_size=5, unique_by=lambda s: s.name).map(lambda s: Stores(tuple(s)))
troubles = st.lists(
    st.builds(
        Trouble, interfaces, st.sampled_from(Fault), names, st.lists(names, max_size=3).map(tuple), st.booleans()
    ),
    max_size=3,
).map(tuple)
requests = st.one_of(
    st.builds(Networks, troubles),
    plans,
    gates,
    store_lists,
    st.builds(Hello, numbers, paths | st.just(""), st.none() | troubles),
    st.builds(Permit, names, numbers),
    st.builds(Release, names, numbers),
    st.just(Status()),
    st.just(Alive()),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
)
fields = st.sampled_from(
    ["networks", "id", "op", "group", "epoch", "version", "entries", "addresses", "pid", "cgroup", "kind", "stores"]
)
ops = st.sampled_from(["networks", "hello", "gate", "stores", "plan", "permit", "release", "status", "alive"])


@given(numbers, requests)
def test_every_request_comes_back_as_it_was_sent(id: int, request: protocol.Request) -> None:
    line = protocol.encode({"id": id, **request_to_json(request)})
    assert parse_request(line) == (id, request)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_one_clear_refusal(line: bytes) -> None:
    with pytest.raises(BadMessage) as caught:
        parse_request(line)
    assert str(caught.value).isprintable()


@settings(max_examples=60)
@given(st.dictionaries(fields, json_values), ops)
def test_any_json_with_known_fields_is_a_request_or_one_clear_refusal(raw: dict[str, object], op: str) -> None:
    try:
        id, request = parse_request(json.dumps({**raw, "op": op}).encode())
    except BadMessage as e:
        refusal = str(e)
    else:
        refusal = ""
        assert parse_request(protocol.encode({"id": id, **request_to_json(request)})) == (id, request)
    assert refusal.isprintable()


@pytest.mark.parametrize(
    ("stores", "why"),
    [
        ([], "expected 1 to 100"),
        ([{"name": "n1", "addresses": ["10.0.0.1"], "port": 7413}] * 2, "of different names"),
        ([{"name": "N1", "addresses": ["10.0.0.1"], "port": 7413}], "no DNS label"),
        ([{"name": "n1", "addresses": [], "port": 7413}], "1 to 8 IP addresses"),
        ([{"name": "n1", "addresses": ["example.org"], "port": 7413}], "no IP address"),
        ([{"name": "n1", "addresses": ["10.0.0.1"], "port": 0}], "no port"),
        ([{"name": "n1", "addresses": ["10.0.0.1"], "port": True}], "no port"),
    ],
)
def test_a_list_of_stores_that_could_cut_the_guard_off_is_refused(stores: list[object], why: str) -> None:
    with pytest.raises(BadMessage, match=why):
        parse_request(json.dumps({"id": 1, "op": "stores", "stores": stores}).encode())


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({"kind": "address", "interface": "eth0;drop", "address": "10.0.0.1", "resource": "x"}, "no interface name"),
        ({"kind": "address", "interface": 'e"0', "address": "10.0.0.1", "resource": "x"}, "no interface name"),
        ({"kind": "address", "interface": "eth0", "address": "10.0.0.1 }", "resource": "x"}, "no IP address"),
        ({"kind": "address", "interface": "eth0", "address": "fe80::1%eth0", "resource": "x"}, "no IP address"),
        ({"kind": "cgroup", "path": "/a/../../etc", "resource": "x"}, "no plain absolute path"),
        ({"kind": "cgroup", "path": "a/b", "resource": "x"}, "no plain absolute path"),
        ({"kind": "volume", "path": "/a", "resource": "x"}, "use address, cgroup or mount"),
        (
            {"kind": "mount", "device": "sdb1", "path": "/a", "resource": "x"},
            "device: 'sdb1' is no plain absolute path",
        ),
        ({"kind": "mount", "device": "/dev/sdb1", "path": "/", "resource": "x"}, "path: '/' is no plain absolute path"),
        ({"kind": "cgroup", "path": "/a", "resource": "X!"}, "no DNS label"),
        ("x", "expected a JSON object"),
    ],
)
def test_an_entry_that_could_reach_further_than_it_says_is_refused(entry: object, why: str) -> None:
    raw = {"id": 1, "op": "plan", "group": "web", "epoch": 1, "version": 1, "entries": [entry]}
    with pytest.raises(BadMessage, match=why):
        parse_request(json.dumps(raw).encode())


def test_a_prefix_length_is_dropped_and_the_address_is_spelled_one_way() -> None:
    assert protocol.address("eth0", "10.0.0.1/24") == Address("eth0", "10.0.0.1")
    assert protocol.address("eth0", "FD77:0::0100/64") == Address("eth0", "fd77::100")


def test_a_refusal_carries_the_id_of_its_request() -> None:
    with pytest.raises(BadMessage) as caught:
        parse_request(b'{"id":7,"op":"permit","group":"web","epoch":-1}')
    assert caught.value.id == 7


def test_a_line_over_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(BadMessage, match="longer than 65536 bytes"):
        parse_request(b"[" * (protocol.MAX_LINE + 1))


def test_deep_nesting_is_refused_and_does_not_end_the_process() -> None:
    with pytest.raises(BadMessage, match="not a line of JSON"):
        parse_request(b"[" * 60_000)
