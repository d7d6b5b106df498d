"""The store process as a whole: its parts serve together, and none may end alone."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
from pathlib import Path

import anyio
import pytest

from hasys.api.client import Client, Context
from hasys.cancelled import PartEnded
from hasys.config import Member, NodeConfig
from hasys.lease.wire import Health
from hasys.model import level
from hasys.model.errors import Refused
from hasys.model.lines import OneLine
from hasys.store import main
from hasys.store.controllers import Controllers
from hasys.v1 import api_pb2
from tests.certs import Files, issue, make_ca

pytestmark = pytest.mark.anyio


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody uses now; all held until all are known, so that they differ."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return issue(make_ca(), tmp_path / "pki", "n1", ips=("127.0.0.1",))


@pytest.fixture
def config(tmp_path: Path, files: Files) -> NodeConfig:
    """A cluster of one voter: the smallest that has a majority."""
    secret = tmp_path / "lease.secret"
    secret.write_text(secrets.token_hex(32))
    api, raft, lease = free_ports(3)
    (tmp_path / "data").mkdir()
    return NodeConfig(
        path=tmp_path / "node.yaml", cluster="demo", cluster_id="test-cluster", name="n1",
        members=(Member("n1", "Voter", ("127.0.0.1",), api, raft, lease),), profile="default", ca=files.ca,
        certificate=files.certificate, key=files.key, lease_secret=secret, node_secret=secret,
        data_dir=tmp_path / "data", run_dir=tmp_path / "run",
    )  # fmt: skip


async def seen(config: NodeConfig) -> api_pb2.StatusResponse:
    """The first status in which the cluster exists, as a client of the API gets it."""
    context = Context("demo", (f"127.0.0.1:{config.me.api_port}",), config.ca, config.certificate, config.key)
    async with Client(context) as client:
        async for status in client.watch_status():
            if status.cluster.name and status.nodes:
                return status
    raise AssertionError("the stream of statuses ended")


@pytest.mark.slow
async def test_a_new_cluster_serves_its_api_and_stops_when_asked(config: NodeConfig) -> None:
    stop = asyncio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(main.serve, config, stop)
        with anyio.fail_after(20):
            status = await seen(config)
        stop.set()
    assert (status.cluster.name, status.cluster.leader, status.cluster.quorum) == ("demo", "n1", True)
    assert [(n.name, n.role) for n in status.nodes] == [("n1", "Voter")]


@pytest.mark.slow
async def test_what_was_written_is_there_after_a_restart(config: NodeConfig) -> None:
    versions = []
    for _ in range(2):
        stop = asyncio.Event()
        async with anyio.create_task_group() as group:
            group.start_soon(main.serve, config, stop)
            with anyio.fail_after(20):
                versions.append((await seen(config)).resource_version)
            stop.set()
    assert 0 < versions[0] <= versions[1], "the second process goes on where the first ended"


@pytest.mark.slow
async def test_a_store_that_is_older_than_the_others_ends_before_it_applies_what_it_does_not_know(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = asyncio.Event()
    with monkeypatch.context() as newer:
        newer.setattr("hasys.model.level.LEVEL", level.LEVEL + 1)
        async with anyio.create_task_group() as group:
            group.start_soon(main.serve, config, stop)
            with anyio.fail_after(20):
                await seen(config)
            stop.set()
    with anyio.fail_after(20), pytest.raises(ExceptionGroup) as error:
        await main.serve(config, asyncio.Event())
    assert error.group_contains(Refused, match=f"understands level {level.LEVEL}, the cluster needs {level.LEVEL + 1}")


@pytest.mark.parametrize("how", ["returned", "cancelled"])
async def test_a_part_that_ends_ends_the_process(config: NodeConfig, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    async def at_once(self: object) -> None:
        await asyncio.sleep(0)
        if how == "cancelled":
            raise asyncio.CancelledError  # as a call does whose connection is closed under it

    monkeypatch.setattr(Controllers, "run", at_once)
    with pytest.raises(ExceptionGroup) as error:
        async with asyncio.timeout(20):
            await main.serve(config, asyncio.Event())
    assert error.group_contains(PartEnded, match="controllers ended")


def test_a_log_record_is_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, "f", 1, "first\nsecond", None, None)
    assert "\n" not in OneLine("%(message)s").format(record)


@pytest.mark.parametrize(
    ("said", "timeout"), [("none", 0.0), ("watchdog 10s", 10.0), ("iTCO 2.5s", 2.5), ("odds and ends", 0.0), ("", 0.0)]
)
def test_the_timeout_of_an_armed_watchdog_is_understood(said: str, timeout: float) -> None:
    assert Health(watchdog=said).watchdog_timeout == timeout
