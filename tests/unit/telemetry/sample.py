"""A cluster in the middle of its life, as status tells it."""

from __future__ import annotations

from hasys.api.convert import duration
from hasys.v1 import api_pb2 as api
from hasys.v1 import monitors_pb2 as mpb


def status() -> api.StatusResponse:
    """Two nodes and a witness, one group with everything that can be told."""
    cluster = api.ClusterView(name="demo", leader="n2", term=4, quorum=True, voters=3)
    times = {"median": 0.002, "p90": 0.004, "p99": 0.01, "longest": 0.05}
    cluster.commits.CopyFrom(api.CommitView(count=100, **{name: duration(time) for name, time in times.items()}))
    n1 = api.NodeView(name="n1", role="Voter", state="Ready")
    n1.lease.CopyFrom(api.LeaseView(valid=True, epoch=3, remaining=duration(0.85)))
    n1.guard.CopyFrom(api.GuardView(armed=True, lag=duration(0.001)))
    n1.figures.CopyFrom(mpb.NodeFigures(cpu=12.5, memory=50.0, processes=210))
    n1.figures.traffic["eth0"].CopyFrom(mpb.TrafficFigures(received=1000.0, sent=10.0))
    n1.figures.monitors.add(group="web", name="load", value=12.5, unit="%")
    group = api.GroupView(name="web", active="n1", epoch=7, phase="Running", redundant=True)
    group.failover_bound.CopyFrom(duration(1.4))
    group.nodes.update({"n1": "Active", "n2": "Standby"})
    group.resources.add(kind="VirtualIP", name="web-ip", node="n1", state="Running")
    group.monitors.add(name="load", node="n1", state="Ok", watches="cpu")
    n2 = api.NodeView(name="n2", role="Voter", state="NotReady")
    witness = api.NodeView(name="w", role="Witness", state="Ready")
    return api.StatusResponse(cluster=cluster, nodes=[n1, n2, witness], groups=[group])
