"""Recorded and reordered lease datagrams. The rules one by one: tests/unit/lease."""

from __future__ import annotations

import itertools
import random
import secrets

from hasys.lease.keeping import Extend, Ignored, Keeper, Permit
from hasys.lease.wire import Grant, decode, derive_key, encode
from hasys.model.timing import PROFILES

TIMING = PROFILES["default"]
KEY = derive_key(b"s" * 32, "n1")


def guard(boot: str) -> Keeper:
    return Keeper("c", "n1", ("n1", "n2", "w"), TIMING, boot, lambda: secrets.randbits(64))


def answer(keeper: Keeper, now: float, version: int = 1) -> bytes:
    """The grant of an honest leader to what the guard asks now, as it goes over the wire."""
    asked = keeper.keepalive(now)[0]
    grant = Grant("c", "n2", 1, "n1", asked.seq, asked.nonce, version, 0.01, TIMING.ttl, (("web", 1, 7),))
    return encode(grant, KEY)


def heard(datagram: bytes) -> Grant:
    message = decode(datagram, "c", lambda _: KEY)
    assert isinstance(message, Grant)
    return message


def test_a_grant_recorded_before_a_reboot_permits_nothing_after_it() -> None:
    earlier = guard("boot-1")
    recorded = heard(answer(earlier, 10.0))
    later = guard("boot-2")
    later.plan("web", 1, 7, 10.0)
    later.keepalive(10.0)  # the same sequence number as the recorded one
    assert later.received(recorded, 10.1) == [Ignored("unknown nonce")]
    assert later.holdings() == guard("boot-3").holdings()


def test_grants_that_are_replayed_and_reordered_never_extend_a_lease() -> None:
    """Whatever comes again, and in whatever order: the lease ends where the newest honest answer put its end."""
    for seed in range(50):
        order = random.Random(seed)
        keeper = guard("boot")
        keeper.plan("web", 1, 7, 10.0)
        sent = [(10.0 + 0.1 * i, answer(keeper, 10.0 + 0.1 * i)) for i in range(5)]
        latest = 10.4 - 0.01 + TIMING.ttl
        replayed = [heard(d) for _, d in sent] * 3
        order.shuffle(replayed)
        ends = []
        for i, grant in zip(itertools.count(), replayed, strict=False):
            for effect in keeper.received(grant, 10.41 + 0.001 * i):
                if isinstance(effect, Permit):
                    ends.append(effect.until)
                elif isinstance(effect, Extend):
                    ends += effect.until.values()
        assert ends
        assert max(ends) <= latest
