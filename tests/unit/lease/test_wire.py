"""Lease datagrams: what is refused, why, and that nothing else can happen."""

from __future__ import annotations

import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hasys.lease import wire
from hasys.lease.wire import DatagramRefused, Grant, Health, Hint, KeepAlive, decode, derive_key, encode
from hasys.model.errors import Refused
from hasys.model.networks import Fault, Trouble

SECRET = bytes(range(32))
KEY = derive_key(SECRET, "n1")
KEEPALIVE = KeepAlive("c1", "n1", "boot", 7, 99, (3, 6), 0.25, (("web", 4),), (("db", 2),), Health(agent=True))

names = st.text("abcdefghij0123456789-", min_size=1, max_size=63)
numbers = st.integers(0, 2**64 - 1)
seconds = st.floats(0, 1e6)
named = st.lists(st.tuples(names, numbers), max_size=20).map(tuple)
texts = st.text(max_size=60).map(lambda t: "".join(c if c.isprintable() else " " for c in t))
troubles = st.builds(
    Trouble, names, st.sampled_from(Fault), texts, st.lists(names, max_size=5).map(tuple), st.booleans()
)
healths = st.builds(
    Health,
    st.booleans(),
    texts,
    seconds,
    st.booleans(),
    texts,
    texts,
    st.lists(troubles, max_size=4).map(tuple),
    st.booleans(),
)
keepalives = st.one_of(
    st.builds(
        KeepAlive, st.just("c1"), st.just("n1"), names, numbers, numbers, st.tuples(numbers, numbers), seconds,
        named, named, healths,
    ),
    st.builds(
        KeepAlive, st.just("c1"), st.just("n1"), names, numbers, numbers, st.none(), st.none(), named, named, healths,
        bound=st.none() | named,
    ),
)  # fmt: skip
grants = st.builds(
    Grant, st.just("c1"), names, numbers, st.just("n1"), numbers, numbers, numbers, seconds, seconds,
    st.lists(st.tuples(names, numbers, numbers), max_size=20).map(tuple), named, st.booleans(), seconds, seconds,
)  # fmt: skip
hints = st.builds(Hint, st.just("c1"), st.just("n1"), numbers, numbers, names)


def key_of(node: str) -> bytes | None:
    return KEY if node == "n1" else None


def reason(datagram: bytes, cluster: str = "c1") -> str:
    with pytest.raises(DatagramRefused) as refused:
        decode(datagram, cluster, key_of)
    return refused.value.reason


def signed(kind: int, body: bytes) -> bytes:
    """What somebody with the right key, and bad intentions, may send."""
    text = encode(Hint("c1", "n1", 1, 2, ""), KEY)
    head = bytearray(text[: wire._HEADER.size + 2])
    head[4] = kind
    unsigned = bytes(head) + body
    return unsigned + hmac.digest(KEY, unsigned, "sha256")[: wire.MAC_LENGTH]


@given(keepalives)
def test_a_keepalive_arrives_as_it_was_sent_with_ages_rounded_up(message: KeepAlive) -> None:
    got = decode(encode(message, KEY), "c1", key_of)
    assert isinstance(got, KeepAlive)
    assert (got.boot, got.seq, got.nonce, got.confirmed) == (
        message.boot,
        message.seq,
        message.nonce,
        message.confirmed,
    )
    assert (got.held, got.released, got.bound) == (message.held, message.released, message.bound)
    assert got.health.message == message.health.message
    assert got.health.networks == message.health.networks
    if message.confirmed_age is not None:
        assert got.confirmed_age is not None
        assert 0 <= got.confirmed_age - message.confirmed_age + 1e-9 < 2e-6


@given(grants)
def test_a_grant_never_gains_time_on_the_wire(message: Grant) -> None:
    got = decode(encode(message, KEY), "c1", key_of)
    assert isinstance(got, Grant)
    assert (got.groups, got.withheld, got.probe) == (message.groups, message.withheld, message.probe)
    assert got.ttl - got.age <= message.ttl - message.age + 1e-9
    assert got.ttl - got.age > message.ttl - message.age - 3e-6
    assert (got.epoch, got.version, got.leader) == (message.term, message.version, message.leader)


@given(hints)
def test_a_hint_arrives_as_it_was_sent(message: Hint) -> None:
    assert decode(encode(message, KEY), "c1", key_of) == message


@given(hints, st.binary(min_size=16, max_size=64))
def test_the_signature_is_hmac_sha_256_of_all_that_stands_before_it(message: Hint, key: bytes) -> None:
    datagram = encode(message, key)
    signed, mac = datagram[: -wire.MAC_LENGTH], datagram[-wire.MAC_LENGTH :]
    assert mac == hmac.new(key, signed, "sha256").digest()[: wire.MAC_LENGTH]
    assert encode(message, key) == datagram


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_nothing_else_happens(datagram: bytes) -> None:
    assert reason(datagram) in {"not-ours", "foreign-cluster", "malformed", "unknown-node", "wrong-key"}


@given(st.integers(0, 500), st.integers(1, 255))
def test_any_changed_byte_is_refused(position: int, flip: int) -> None:
    datagram = bytearray(encode(KEEPALIVE, KEY))
    datagram[position % len(datagram)] ^= flip
    assert reason(bytes(datagram))


@given(st.integers(0, 6), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=8), max_leaves=30,
))  # fmt: skip
def test_any_signed_body_is_a_message_or_malformed(kind: int, body: object) -> None:
    datagram = signed(kind, json.dumps(body).encode())
    try:
        message = decode(datagram, "c1", key_of)
    except DatagramRefused:
        assert reason(datagram) == "malformed"
    else:
        assert isinstance(message, (KeepAlive, Grant, Hint))


@pytest.mark.parametrize(
    "body", [b"", b"[" * 50_000, b"9" * 50_000, b"NaN", b"\xff\xfe", b'{"a":1}', b"[1e999]", b'["\\ud800"]']
)
def test_hostile_json_with_a_right_signature_is_malformed(body: bytes) -> None:
    assert reason(signed(3, body)) == "malformed"


def test_a_datagram_over_the_limit_is_refused_before_it_is_read() -> None:
    assert reason(encode(KEEPALIVE, KEY) + bytes(wire.LARGEST)) == "too-long"


def test_too_much_to_say_is_refused_by_the_sender() -> None:
    held = tuple((f"{'g' * 50}{i}", i) for i in range(1500))
    with pytest.raises(DatagramRefused, match="too-long"):
        encode(KeepAlive("c1", "n1", "b", 1, 1, None, None, held), KEY)


def test_a_foreign_cluster_a_foreign_node_and_a_wrong_key_are_told_apart() -> None:
    assert reason(encode(KEEPALIVE, KEY), cluster="c2") == "foreign-cluster"
    foreign = KeepAlive("c1", "n9", "boot", 1, 1, None, None)
    assert reason(encode(foreign, derive_key(SECRET, "n9"))) == "unknown-node"
    assert reason(encode(KEEPALIVE, derive_key(SECRET, "n2"))) == "wrong-key"


def test_keys_differ_by_node_and_by_cluster() -> None:
    assert len({derive_key(SECRET, "n1"), derive_key(SECRET, "n2"), derive_key(bytes(32), "n1")}) == 3


def test_a_secret_is_64_hex_digits() -> None:
    assert wire.parse_secret(b"ab" * 32 + b"\n") == bytes([0xAB]) * 32
    for content in (b"", b"xyz", b"ab" * 31, b"ab" * 33, b"\xff" * 64, "\u0661".encode() * 64):
        with pytest.raises(Refused, match="64 hexadecimal"):
            wire.parse_secret(content)


def test_a_node_with_nothing_to_complain_of_is_understood_by_stores_that_know_no_networks() -> None:
    body = json.loads(encode(KEEPALIVE, KEY)[wire._HEADER.size + 2 : -wire.MAC_LENGTH])
    assert len(body[4]) == 6


@pytest.mark.parametrize("told", [[["eth0", 9, "", [], False]], [["eth0", True, "", [], False]], [["eth0", 4]], 7])
def test_a_fault_that_is_none_is_refused(told: object) -> None:
    body = json.loads(encode(KEEPALIVE, KEY)[wire._HEADER.size + 2 : -wire.MAC_LENGTH])
    body[4] = [*body[4], told]
    assert reason(signed(1, json.dumps(body).encode())) == "malformed"
