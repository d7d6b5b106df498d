"""Members are replaced while a group runs: it stays where it is, and its guards find stores that no node.yaml names."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import anyio
import pytest
import yaml

from hasys.guard import client as guard_client
from hasys.lab.cluster import Cluster, address_manifest, group_manifest, hasys_command
from hasys.lab.lab import Lab
from hasys.lab.shell import until

pytestmark = pytest.mark.lab


def guard(cluster: Cluster, node: str) -> dict[str, Any]:
    """What the guard of that node says of itself."""

    async def ask() -> dict[str, Any]:
        path = cluster.machine(node).root / f"run/hasys/demo-{node}/guard.sock"
        async with guard_client.connect(path) as asked:
            return await asked.status()

    return anyio.run(ask)


def states(cluster: Cluster) -> dict[str, str]:
    listed = json.loads(cluster.hasys("member", "list", "-o", "json"))
    return {member["name"]: member["state"] for member in listed["members"]}


def test_the_witness_is_replaced_while_a_group_runs_and_the_new_one_grants(lab: Lab) -> None:
    cluster = Cluster(lab)
    cluster.start()
    cluster.wait_ready()
    cluster.apply(group_manifest(nodes={"n1": 100, "n2": 50}) + address_manifest("10.77.0.100/24"))
    active = cluster.wait_redundant("web")
    before = cluster.group("web")

    options = ("--role", "Witness", "--address", "10.77.0.9,10.78.0.9", "--ca", str(cluster.folder / "ca"))
    cluster.hasys("member", "add", "w2", *options, "--out", str(cluster.folder))
    config = str(cluster.folder / "w2" / "node.yaml")
    lab.machine("w2", 9, (*hasys_command(), "witness", "run", "--config", config))
    until(lambda: states(cluster).get("w2") == "Follower", 15, "w2 to vote")
    cluster.hasys("member", "remove", "w")
    lab.power_off("w")
    for node in ("n1", "n2"):
        until(lambda node=node: set(guard(cluster, node)["stores"]) == {"n1", "n2", "w2"}, 10, "the guards to know")  # type: ignore[misc]

    cluster.make_leader("w2", "web")
    standby = "n2" if active == "n1" else "n1"
    lab.power_off(standby)  # the own store is a follower now, and every grant is the newcomer's
    cluster.wait(lambda s: any(n["name"] == standby and n["state"] == "Lost" for n in s["nodes"]), 10, "it to be lost")
    said = guard(cluster, active)
    assert said["leader"] == "w2"
    assert said["lease"]["valid"]
    after = cluster.group("web")
    assert (after["active"], after["epoch"]) == (before["active"], before["epoch"])
    assert [change for change in after["resources"] if change["state"] != "Running"] == []


def test_a_removed_node_says_so_once_goes_on_without_ending_and_tells_it_in_its_status(lab: Lab) -> None:
    cluster = Cluster(lab)
    cluster.start()
    cluster.wait_ready()
    removed = cluster.machine("n2")
    agents = removed.processes("agent")
    cluster.hasys("member", "remove", "n2")
    line = "hasys.reconciler.cluster: n2 is no member of the cluster any more: stop hasys here"
    until(lambda: line in removed.log.read_text(), 15, "its agent to say so")

    settings = cluster.client_settings
    alone = settings.with_name("n2.yaml")
    told = yaml.safe_load(settings.read_text())
    told["servers"] = [server for server in told["servers"] if server.startswith(removed.address())]
    alone.write_text(yaml.safe_dump(told))

    def status() -> str:
        argv = lab.client.command(*hasys_command(), "--context", str(alone), "status")
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    until(lambda: "is no member any more" in status(), 15, "its store to tell")
    assert removed.processes("agent") == agents
    assert removed.log.read_text().count(line) == 1
    assert {node["name"] for node in cluster.status()["nodes"]} == {"n1", "w"}
