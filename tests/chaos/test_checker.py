"""The checker accepts what some order explains and refuses what none does."""

from __future__ import annotations

import random
import time

import pytest

from tests.chaos.checker import NEVER, Operation, check

R = "r"


def read(client: str, called: float, returned: float, value: str) -> Operation:
    return Operation(client, R, "read", called, returned, value)


def change(client: str, called: float, returned: float, expected: str, value: str) -> Operation:
    return Operation(client, R, "change", called, returned, value, expected)


def accepted(*history: Operation) -> bool:
    return all(check(history, "0"))


def test_operations_one_after_the_other() -> None:
    assert accepted(read("a", 0, 1, "0"), change("a", 2, 3, "0", "1"), read("b", 4, 5, "1"))


def test_a_read_during_a_change_may_show_either_value() -> None:
    writing = change("a", 0, 10, "0", "1")
    assert accepted(writing, read("b", 1, 2, "0"), read("b", 3, 4, "1"))
    assert accepted(writing, read("b", 1, 2, "1"))


def test_a_stale_read_is_refused() -> None:
    assert not accepted(change("a", 0, 1, "0", "1"), read("b", 2, 3, "0"))


def test_values_that_go_back_and_forth_during_a_change_are_refused() -> None:
    assert not accepted(change("a", 0, 10, "0", "1"), read("b", 1, 2, "1"), read("c", 3, 4, "0"))


def test_a_lost_update_is_refused() -> None:
    """Both changes replaced the same value, and both were acknowledged."""
    assert not accepted(change("a", 0, 10, "0", "1"), change("b", 0, 10, "0", "2"))


def test_an_acknowledged_change_that_vanishes_is_refused() -> None:
    assert not accepted(change("a", 0, 1, "0", "1"), change("b", 2, 3, "0", "2"), read("b", 4, 5, "2"))


def test_changes_that_took_effect_in_another_order_than_their_calls_are_refused() -> None:
    assert not accepted(change("b", 0, 1, "1", "2"), change("a", 2, 3, "0", "1"), read("a", 4, 5, "2"))


def test_a_value_that_nobody_wrote_is_refused() -> None:
    assert not accepted(read("a", 0, 1, "7"))


def test_a_change_of_unknown_outcome_may_have_happened_late_or_never() -> None:
    unknown = change("a", 0, NEVER, "0", "1")
    assert accepted(unknown, read("b", 5, 6, "0"))
    assert accepted(unknown, read("b", 5, 6, "0"), read("b", 7, 8, "1"))
    assert accepted(unknown, change("b", 2, 3, "0", "2"))


def test_a_change_of_unknown_outcome_does_not_happen_before_its_call_nor_twice() -> None:
    unknown = change("a", 5, NEVER, "0", "1")
    assert not accepted(read("b", 1, 2, "1"), unknown)
    assert not accepted(unknown, change("b", 7, 8, "1", "0"), read("b", 9, 10, "1"))


def test_registers_are_independent() -> None:
    other = Operation("b", "other", "read", 2, 3, "0")
    verdicts = check([change("a", 0, 1, "0", "1"), other, read("a", 2, 3, "0")], "0")
    assert [(v.register, bool(v)) for v in verdicts] == [("other", True), (R, False)]


def test_a_refusal_names_the_operations_that_cannot_be_next() -> None:
    stale = read("b", 2, 3, "0")
    (verdict,) = check([change("a", 0, 1, "0", "1"), stale], "0")
    assert (verdict.stuck, verdict.state) == ((stale,), "1")


def simulated(rng: random.Random, count: int, clients: int) -> list[Operation]:
    """A history of a real register: each operation takes effect at one moment between call and return."""
    state, history, clock = "0", [], 0.0
    free = dict.fromkeys((f"c{i}" for i in range(clients)), 0.0)
    moments = []
    for serial in range(count):
        client = min(free, key=lambda name: free[name])
        called = free[client]
        effect = max(clock, called) + rng.random() * 0.1
        clock = effect
        returned = effect + rng.random() * 0.5
        free[client] = returned
        moments.append((client, called, returned, serial))
        if rng.random() < 0.5:
            history.append(read(client, called, returned, state))
        else:
            end = returned if rng.random() < 0.9 else NEVER
            history.append(change(client, called, end, state, f"v{serial}"))
            state = f"v{serial}"
    return history


@pytest.mark.parametrize("seed", range(20))
def test_histories_of_a_real_register_are_accepted_and_one_old_value_in_them_is_not(seed: int) -> None:
    rng = random.Random(seed)
    history = simulated(rng, 400, clients=6)
    assert accepted(*history)
    known = [i for i, o in enumerate(history) if o.kind == "read" and o.called > 20]
    spoilt = rng.choice(known)
    old = history[spoilt]
    history[spoilt] = read(old.client, old.called, old.returned, "0")
    assert not accepted(*history)


def test_a_long_history_is_checked_in_seconds() -> None:
    began = time.process_time()
    assert accepted(*simulated(random.Random(1), 5000, clients=10))
    assert time.process_time() - began < 20
