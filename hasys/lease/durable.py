"""What a keeper asks its guard to keep beyond the power of the machine; see :mod:`hasys.lease.tokens`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenTaken:
    """This node has the token now: before the effects that follow, make that outlive this guard; soon the power too,
    else a power cut ends in waiting for the peer."""

    group: str
    epoch: int


@dataclass(frozen=True, slots=True)
class TokenDropped:
    """A leader knows of no business of ours with the group. Forget the token durably, then call
    :meth:`hasys.lease.tokens.TokenKeeper.token_gone`: only then is it said to be gone."""

    group: str
    epoch: int
