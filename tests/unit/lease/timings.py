"""Round figures for the tests of leases: what they compute by hand stays true when a profile changes."""

from __future__ import annotations

from hasys.model.timing import Timing

TIMING = Timing(
    ttl=1.0,
    heartbeat=0.1,
    keepalive=0.15,
    leader_fallback=0.35,
    election_min=0.37,
    election_max=0.49,
    rtt=0.01,
    fsync=0.02,
    fence_budget=0.1,
).check()
