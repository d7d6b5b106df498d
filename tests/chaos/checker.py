"""Is a history of concurrent operations on one register linearizable? Small, and independent of the product.

The algorithm is Wing and Gong's search with Lowe's memory of configurations (J. Wing, C. Gong: Testing and Verifying
Concurrent Objects, 1993; G. Lowe: Testing for Linearizability, 2016): take, in every possible order, an operation that
no other one wholly precedes; never look twice at the same set of operations taken and the same state.
Registers are independent of each other, so each is checked alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

NEVER = math.inf
"""Return time of an operation whose outcome nobody knows: it may have happened at any time after its call, or not."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a client. Times are of one clock; a change of ``expected`` to ``value`` has no effect otherwise."""

    client: str
    register: str
    kind: str
    """read | change"""
    called: float
    returned: float
    value: str
    """What was read, or written."""
    expected: str = ""
    """change: the value that it replaces."""

    def __str__(self) -> str:
        what = f"read {self.value!r}" if self.kind == "read" else f"change {self.expected!r} to {self.value!r}"
        end = "unknown" if self.returned == NEVER else f"{self.returned:.4f}"
        return f"{self.called:.4f}..{end} {self.client}: {what}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``stuck``: where the longest attempt could not go on; empty when the history is linearizable."""

    register: str
    operations: int
    stuck: tuple[Operation, ...] = ()
    state: str = ""

    def __bool__(self) -> bool:
        return not self.stuck


def check(history: Iterable[Operation], initial: str) -> list[Verdict]:
    """One verdict per register; each begins with ``initial``."""
    by_register: dict[str, list[Operation]] = {}
    for operation in history:
        by_register.setdefault(operation.register, []).append(operation)
    return [_Search(name, operations, initial).run() for name, operations in sorted(by_register.items())]


def _relevant(operations: Sequence[Operation]) -> list[Operation]:
    """Without changes of unknown outcome whose value nobody saw: they may just as well not have happened."""
    kept = list(operations)
    while True:
        seen = {o.value for o in kept if o.kind == "read"} | {o.expected for o in kept if o.kind == "change"}
        fewer = [o for o in kept if o.returned != NEVER or (o.kind == "change" and o.value in seen)]
        if len(fewer) == len(kept):
            return kept
        kept = fewer


class _Search:
    """Depth first, without recursion. A set of operations is the bits of a number."""

    def __init__(self, register: str, operations: Sequence[Operation], initial: str) -> None:
        self._register = register
        self._ops = sorted(_relevant(operations), key=lambda o: o.called)
        self._initial = initial
        self._required = sum(1 << i for i, o in enumerate(self._ops) if o.returned != NEVER)
        self._seen: set[tuple[int, str]] = set()
        self._deepest = (-1, 0, initial)

    def run(self) -> Verdict:
        stack = [(0, 0, self._initial)]
        while stack:
            taken, first, state = stack.pop()
            if taken & self._required == self._required:
                return Verdict(self._register, len(self._ops))
            if (taken, state) in self._seen:
                continue
            self._seen.add((taken, state))
            self._deepest = max(self._deepest, (taken.bit_count(), taken, state))
            stack += self._steps(taken, first, state)
        _, taken, state = self._deepest
        stuck = tuple(self._ops[i] for i in self._candidates(taken, 0))
        return Verdict(self._register, len(self._ops), stuck, state)

    def _candidates(self, taken: int, first: int) -> list[int]:
        """Operations not taken that were called before any other one not taken had returned."""
        found: list[int] = []
        earliest = NEVER
        for i in range(first, len(self._ops)):
            operation = self._ops[i]
            if operation.called > earliest:
                break
            if not taken >> i & 1:
                found.append(i)
                earliest = min(earliest, operation.returned)
        return [i for i in found if self._ops[i].called <= earliest]

    def _steps(self, taken: int, first: int, state: str) -> list[tuple[int, int, str]]:
        while taken >> first & 1:
            first += 1
        steps = []
        for i in reversed(self._candidates(taken, first)):
            operation = self._ops[i]
            if operation.kind == "read" and operation.value == state:
                steps.append((taken | 1 << i, first, state))
            elif operation.kind == "change" and operation.expected == state:
                steps.append((taken | 1 << i, first, operation.value))
        return steps
