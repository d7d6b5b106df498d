"""Each check beside the real thing: processes, ports, pages, files of the kernel."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest

from hasys.model.errors import HasysError
from hasys.monitors import facts, load, routes, traffic
from hasys.monitors.group import GroupCheck
from hasys.monitors.http import HttpCheck
from hasys.monitors.load import CpuCheck, MemoryCheck
from hasys.monitors.mount import MountCheck, mounts
from hasys.monitors.network import IpCheck, NetworkCheck, VirtualIPCheck
from hasys.monitors.own import HasysCheck
from hasys.monitors.ping import PingCheck
from hasys.monitors.port import Ended, Found, Link, Standing, judged, listed
from hasys.monitors.process import ProcessCheck, ProcessCountCheck
from hasys.monitors.processes import ProcessTable
from hasys.monitors.script import ScriptCheck
from hasys.monitors.service import ServiceCheck
from hasys.monitors.tcp import TcpCheck
from hasys.monitors.threads import Blocking, Hanging
from hasys.monitors.traffic import TrafficCheck
from hasys.monitors.volume import VolumeCheck
from hasys.v1 import monitors_pb2 as mpb

pytestmark = pytest.mark.anyio
MARK = f"hasys-test-{os.getpid()}"


class FakeMachine:
    """A machine with one good interface, one that is down and one without cable."""

    links: Mapping[str, Link] = {"eth0": Link(True, True), "eth1": Link(False, False), "eth2": Link(True, False)}
    held: Mapping[str, str] = {"10.0.0.9": "eth0", "10.0.1.9": "eth2"}
    groups: Mapping[str, Standing] = {"db": Standing("Running", "n1"), "off": Standing("Stopped", "")}
    processes: Mapping[str, str] = {"Guard": "the guard does not answer", "Store": ""}

    def link(self, name: str) -> Link | None:
        return self.links.get(name)

    def holder(self, address: str) -> str:
        return self.held.get(address, "")

    def addresses(self, group: str) -> Mapping[str, str]:
        return {"ip": "10.0.0.9", "lost": "10.0.0.8"}

    def replicated(self, group: str) -> Mapping[str, tuple[str, str]]:
        return {"data": ("r0", "/dev/drbd0")}

    def standing(self, group: str) -> Standing | None:
        return self.groups.get(group)

    async def own(self) -> Mapping[str, str]:
        return self.processes


class Real:
    """Runs commands as they are."""

    async def run(
        self, argv: Sequence[str], *, user: str = "root", directory: str = "/", env: Mapping[str, str] | None = None
    ) -> Ended:
        done = await anyio.run_process(argv, check=False, cwd=directory, env={**os.environ, **(env or {})})
        return Ended(done.returncode, (done.stdout + done.stderr).decode())


class Said:
    """A command that says this."""

    def __init__(self, output: str, code: int = 0) -> None:
        self._ended = Ended(code, output)
        self.argv: Sequence[str] = ()

    async def run(
        self, argv: Sequence[str], *, user: str = "root", directory: str = "/", env: Mapping[str, str] | None = None
    ) -> Ended:
        self.argv = argv
        return self._ended


# ---------------------------------------------------------------- processes


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """It runs: in the middle of its exec a process has no command line yet."""
    program = "import time; print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program, MARK], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"\n"
        yield child
        child.kill()


def is_dead(pid: int) -> bool:
    return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]


def table() -> ProcessTable:
    return ProcessTable(anyio.CapacityLimiter(4))


async def test_a_process_is_found_by_a_pattern_of_its_command_line_and_missed_once_it_is_dead(
    sleeper: subprocess.Popen[bytes],
) -> None:
    check = ProcessCheck(mpb.ProcessMonitor(patterns=[f"*time.sleep(600)*{MARK}"]), table())
    assert await check.look() == Found()
    sleeper.kill()
    while not is_dead(sleeper.pid):
        await anyio.lowlevel.checkpoint()
    check = ProcessCheck(mpb.ProcessMonitor(patterns=[f"*time.sleep(600)*{MARK}"]), table())
    assert (await check.look()).trouble == f"no process *time.sleep(600)*{MARK}"  # dead, though not yet reaped


@pytest.fixture
def own() -> str:
    """The name of this very process."""
    return Path("/proc/self/comm").read_text().strip()


async def test_a_process_is_found_by_its_name_as_far_as_the_kernel_keeps_it(own: str) -> None:
    long = own + "x" * (15 - len(own)) if len(own) < 15 else own + "-and-more"
    both = mpb.ProcessMonitor(names=[own, "no-such-program"])
    assert (await ProcessCheck(both, table()).look()).trouble == "no process no-such-program"
    both.need = mpb.Any
    assert (await ProcessCheck(both, table()).look()).ok
    assert (await ProcessCheck(mpb.ProcessMonitor(names=[long]), table()).look()).ok == (len(own) >= 15)


async def test_processes_are_counted(sleeper: subprocess.Popen[bytes]) -> None:
    few = mpb.ProcessCountMonitor(pattern=f"*{MARK}", minimum=2)
    found = await ProcessCountCheck(few, table()).look()
    assert (found.trouble, found.value) == (f"fewer than 2 processes *{MARK}", 1.0)
    many = mpb.ProcessCountMonitor(pattern=f"*{MARK}", maximum=0)
    assert (await ProcessCountCheck(many, table()).look()).trouble == f"more than 0 processes *{MARK}"
    assert (await ProcessCountCheck(mpb.ProcessCountMonitor(pattern=f"*{MARK}", minimum=1), table()).look()).ok


async def test_all_who_look_at_the_same_time_share_one_scan() -> None:
    shared = table()
    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(shared.read)
    assert shared.scans == 1


def put(procfs: Path, command: bytes, *, state: str = "S", layout: str = "8192", started: str = "100") -> None:
    """Process 7 of a /proc, started ``started`` ticks after the boot; ``layout``: where its arguments lie."""
    process = procfs / "7"
    process.mkdir(exist_ok=True)
    fields = [state, *["0"] * 18, started, *["0"] * 3, "4096", *["0"] * 21, layout, "8200", "0"]
    (process / "stat").write_text(f"7 (first) {' '.join(fields)}")
    (process / "cmdline").write_bytes(command)


async def commands(small: ProcessTable) -> list[str]:
    small._read_at = float("-inf")
    return [program.command for program in await small.read()]


async def test_another_program_under_the_same_number_is_seen(tmp_path: Path) -> None:
    small = ProcessTable(anyio.CapacityLimiter(1), str(tmp_path))
    put(tmp_path, b"first\0-x\0")
    assert await commands(small) == ["first -x"]
    put(tmp_path, b"second\0", layout="9000")
    assert await commands(small) == ["second"]


async def test_a_process_first_seen_while_it_waited_for_a_disk_is_read_once_it_runs(tmp_path: Path) -> None:
    small = ProcessTable(anyio.CapacityLimiter(1), str(tmp_path))
    put(tmp_path, b"first\0-x\0", state="D")
    assert await commands(small) == [""], "not read now: that may hang"
    put(tmp_path, b"first\0-x\0")
    assert await commands(small) == ["first -x"]
    put(tmp_path, b"first\0-x\0", state="D")
    assert await commands(small) == ["first -x"]


async def test_a_title_that_changed_while_it_waited_for_a_disk_is_read_once_it_runs(tmp_path: Path) -> None:
    small = ProcessTable(anyio.CapacityLimiter(1), str(tmp_path))
    put(tmp_path, b"first\0-x\0")
    assert await commands(small) == ["first -x"]
    put(tmp_path, b"first: worker\0", state="D", layout="9000")
    await commands(small)
    put(tmp_path, b"first: worker\0", layout="9000")
    assert await commands(small) == ["first: worker"]


# ---------------------------------------------------------------- networks


async def test_interfaces_and_addresses_are_judged_all_or_any() -> None:
    spec = mpb.NetworkMonitor(interfaces=["eth0", "eth1", "eth2", "eth9"], addresses=["10.0.1.9", "10.9.9.9"])
    assert (await NetworkCheck(spec, FakeMachine()).look()).trouble == (
        "interface eth1 is down; interface eth2 has no carrier; interface eth9 does not exist;"
        " interface eth2 has no carrier; address 10.9.9.9 is not on this node"
    )
    spec.need = mpb.Any
    assert (await NetworkCheck(spec, FakeMachine()).look()).ok


async def test_addresses_and_virtual_ips_must_be_on_the_node() -> None:
    assert (await IpCheck(mpb.IpMonitor(addresses=["10.0.0.9"]), FakeMachine()).look()).ok
    assert (await VirtualIPCheck(mpb.VirtualIPMonitor(resources=["ip"]), FakeMachine(), "web").look()).ok
    lost = await VirtualIPCheck(mpb.VirtualIPMonitor(), FakeMachine(), "web").look()
    assert lost.trouble == "address 10.0.0.8 is not on this node"


@pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")
async def test_a_machine_that_answers_is_told_from_one_that_does_not() -> None:
    spec = mpb.PingMonitor(addresses=["127.0.0.1", "::1"])
    found = await PingCheck(spec).look()
    assert found.ok
    assert found.value is not None
    spec = mpb.PingMonitor(addresses=["127.0.0.1", "192.0.2.1"], need=mpb.Any)
    assert (await PingCheck(spec).look()).ok
    spec = mpb.PingMonitor(addresses=["240.0.0.1"])
    assert (await PingCheck(spec).look()).trouble == "240.0.0.1 does not answer"


async def test_the_gateways_of_ipv4_are_asked_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    check = PingCheck(mpb.PingMonitor(gateway=True))
    monkeypatch.setattr(routes, "gateways", lambda: {"eth0": ("127.0.0.1", "fe80::fe")})
    assert (await check.look()).ok
    monkeypatch.setattr(routes, "gateways", lambda: {"eth0": ("fe80::fe",)})
    assert (await check.look()).trouble == "this node has no default gateway"


async def test_traffic_is_a_rate_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    count = {"eth0": (0, 0)}
    monkeypatch.setattr(traffic, "counters", lambda: dict(count))
    over = TrafficCheck(mpb.TrafficMonitor(interface="eth0", maximum=1))
    under = TrafficCheck(mpb.TrafficMonitor(interface="eth0", minimum=10**12))
    gone = TrafficCheck(mpb.TrafficMonitor(interface="eth7", minimum=1))
    count["eth0"] = (10**9, 10**9)
    await anyio.lowlevel.checkpoint()
    assert (await over.look()).trouble == "more than 1 B/s through eth0"
    assert (await gone.look()).trouble == "interface eth7 does not exist"
    await under.look()
    assert (await under.look()).trouble == f"less than {10**12} B/s through eth0"


# ---------------------------------------------------------------- load


async def test_processor_and_memory_use_are_compared_with_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([(0.0, 0.0), (100.0, 95.0), (200.0, 100.0), (200.0, 100.0)])
    monkeypatch.setattr(load, "_busy", lambda: next(readings))
    check = CpuCheck(mpb.LoadMonitor(limit=90))
    over, under, again = [await check.look() for _ in range(3)]
    assert (over.trouble, over.value) == ("processor use is at or over 90 %", 95.0)
    assert (under.trouble, under.value) == ("", 5.0)
    assert again == Found()  # no time has passed: nothing is known
    monkeypatch.setattr(load, "memory", lambda: 91.0)
    assert (await MemoryCheck(mpb.LoadMonitor(limit=91)).look()).trouble == "memory use is at or over 91 %"
    assert (await MemoryCheck(mpb.LoadMonitor(limit=92)).look()).ok


async def test_the_figures_of_this_machine_are_in_range() -> None:
    figures = facts.Gauges().read()
    assert 0 <= figures.cpu <= 100
    assert 0 < figures.memory <= 100
    assert figures.processes > 1
    assert figures.host.processors >= 1
    assert figures.host.kernel == os.uname().release
    assert "lo" in figures.traffic


# ---------------------------------------------------------------- storage

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:2 / /data rw,relatime - ext4 /dev/sdb1 rw
31 22 8:3 / /hurt rw,relatime - ext4 /dev/sdc1 ro,errors=remount-ro
32 22 8:4 / /with\\040space ro - ext4 /dev/sdd1 rw
"""


@pytest.fixture
def mount_table(tmp_path: Path) -> str:
    path = tmp_path / "mountinfo"
    path.write_text(TABLE)
    return str(path)


async def test_mounts_that_are_missing_or_went_read_only_are_named(mount_table: str) -> None:
    spec = mpb.MountMonitor(paths=["/", "/data/", "/hurt", "/with space", "/lost"])
    assert (await MountCheck(spec, mount_table).look()).trouble == (
        "/hurt is read-only; /with space is read-only; nothing is mounted at /lost"
    )
    spec.read_only_allowed = True
    assert (await MountCheck(spec, mount_table).look()).trouble == "nothing is mounted at /lost"


def test_the_real_table_has_a_root() -> None:
    assert "/" in mounts()


async def test_a_volume_tells_its_space_and_takes_a_write(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text(f"30 22 8:2 / {tmp_path} rw - ext4 /dev/sdb1 rw\n")
    spec = mpb.VolumeMonitor(path=str(tmp_path), used_limit=100, write=True)
    found = await VolumeCheck(spec, Real(), str(table)).look()
    assert found.ok or found.trouble.endswith("full")
    assert found.value is not None
    assert 0 <= found.value <= 100
    assert (tmp_path / ".hasys-probe").stat().st_size == 512


async def test_a_full_a_read_only_and_a_silent_volume_are_told_apart(mount_table: str) -> None:
    full = Said("1000 60 50 100 90")
    found = await VolumeCheck(mpb.VolumeMonitor(path="/data", used_limit=90), full, mount_table).look()
    assert (found.trouble, round(found.value or 0)) == ("/data is at or over 90 % full", 95)
    inodes = Said("1000 900 900 100 5")
    found = await VolumeCheck(mpb.VolumeMonitor(path="/data", used_limit=90), inodes, mount_table).look()
    assert found.trouble == "/data is at or over 90 % full"
    hurt = await VolumeCheck(mpb.VolumeMonitor(path="/hurt"), full, mount_table).look()
    assert hurt.trouble == "/hurt is read-only"
    with pytest.raises(HasysError, match="Input/output error"):
        await VolumeCheck(mpb.VolumeMonitor(path="/data"), Said("stat: Input/output error", 1), mount_table).look()


async def test_a_device_is_read_past_every_cache(tmp_path: Path) -> None:
    said = Said("", 0)
    assert (await VolumeCheck(mpb.VolumeMonitor(device="/dev/sdx"), said).look()).ok
    assert "iflag=direct" in said.argv
    broken = await VolumeCheck(mpb.VolumeMonitor(device=str(tmp_path / "none")), Real()).look()
    assert broken.trouble == f"{tmp_path}/none cannot be read"


# ---------------------------------------------------------------- answers


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/busy" else 200)
        self.end_headers()
        self.wfile.write(f"all is well at {self.path}".encode())

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def test_a_port_takes_connections_or_does_not(web: int, free_port: int) -> None:
    assert (await TcpCheck(mpb.TcpMonitor(port=web)).look()).ok
    closed = await TcpCheck(mpb.TcpMonitor(host="127.0.0.1", port=free_port)).look()
    assert closed.trouble == f"127.0.0.1 port {free_port} takes no connection"


async def test_a_port_answers_as_expected_or_does_not(web: int) -> None:
    request = "GET / HTTP/1.0\r\n\r\n"
    assert (await TcpCheck(mpb.TcpMonitor(port=web, send=request, expect="all is well")).look()).ok
    other = await TcpCheck(mpb.TcpMonitor(port=web, send=request, expect="nothing like it")).look()
    assert other.trouble == f"127.0.0.1 port {web} does not answer as expected"


async def test_a_page_is_judged_by_status_and_content(web: int, free_port: int) -> None:
    limiter = anyio.CapacityLimiter(1)

    async def look(path: str, port: int = web, **spec: object) -> str:
        url = f"http://127.0.0.1:{port}{path}"
        part = mpb.HttpMonitor(url=url, **spec)  # type: ignore[arg-type]
        return (await HttpCheck(part, Blocking(limiter), 5.0).look()).trouble.removeprefix(url)

    assert await look("/") == ""
    assert await look("/?a=b", contains="at /?a=b") == ""
    assert await look("/busy") == " answers with status 503"
    assert await look("/busy", statuses=[503]) == ""
    assert await look("/", contains="sick") == " does not contain the expected text"
    assert await look("/", free_port) == " does not answer"


async def test_a_call_that_hangs_is_left_behind_and_not_asked_again() -> None:
    go = threading.Event()
    asking = Blocking(anyio.CapacityLimiter(2))
    with anyio.move_on_after(0.05):
        await asking.call(lambda: go.wait(10), "x")
    with pytest.raises(Hanging, match="x: the last look still hangs"):
        await asking.call(lambda: True, "x")
    go.set()
    with anyio.fail_after(5):
        while True:
            try:
                assert await asking.call(lambda: True, "x")
                break
            except Hanging:
                await anyio.lowlevel.checkpoint()


# ---------------------------------------------------------------- scripts, services, groups, hasys


@pytest.mark.parametrize(
    ("output", "trouble", "value"),
    [
        ("checking\n99.5 %\n", "", 99.5),
        ("95", "", 95.0),
        ("94.9", "sync-state: less than 95", 94.9),
        ("101", "sync-state: more than 100", 101.0),
        ("", "sync-state: its last line is no number", None),
        ("in sync", "sync-state: its last line is no number", None),
    ],
)
async def test_a15_a_script_tells_a_figure_that_must_lie_within_bounds(
    output: str, trouble: str, value: float | None
) -> None:
    spec = mpb.ScriptMonitor(command=["sync-state"], minimum=95, maximum=100)
    found = await ScriptCheck(spec, Said(output), {}).look()
    assert (found.trouble.replace("%", ""), found.value) == (trouble, value)


async def test_a15_a_mount_that_must_not_be_there_is_named(mount_table: str) -> None:
    spec = mpb.MountMonitor(paths=["/data", "/lost"], unmounted=True)
    assert (await MountCheck(spec, mount_table).look()).trouble == "something is mounted at /data"
    spec = mpb.MountMonitor(paths=["/lost"], unmounted=True)
    assert (await MountCheck(spec, mount_table).look()).ok


async def test_a_script_says_how_it_ended_and_its_last_line() -> None:
    spec = mpb.ScriptMonitor(command=["sh", "-c", 'echo "$A $HASYS_GROUP"; exit 3'], env={"A": "no"})
    found = await ScriptCheck(spec, Real(), {"HASYS_GROUP": "web"}).look()
    assert (found.trouble, found.detail) == ("sh: exit status 3", "no web")
    assert (await ScriptCheck(mpb.ScriptMonitor(command=["true"]), Real(), {}).look()).ok


def unit(active: str, sub: str = "", result: str = "success", loaded: str = "loaded") -> Said:
    return Said(f"LoadState={loaded}\nActiveState={active}\nSubState={sub}\nResult={result}\n")


@pytest.mark.parametrize(
    ("said", "trouble", "action"),
    [
        (unit("active", "running"), "", None),
        (unit("inactive", "dead"), "a.service is not started", mpb.MonitorSpec.Restart),
        (unit("inactive", loaded="not-found"), "a.service does not exist", mpb.MonitorSpec.Restart),
        (unit("failed", "failed", "core-dump"), "a.service crashed (core-dump)", mpb.MonitorSpec.Failover),
        (unit("failed", "failed", "watchdog"), "a.service hung (watchdog)", mpb.MonitorSpec.Stop),
        (unit("activating", "auto-restart", "timeout"), "a.service is started again by systemd (timeout)", 3),
        (unit("activating", "auto-restart", "exit-code"), "", None),
        (unit("maintenance"), "a.service is in an unknown state (maintenance)", None),
    ],
)
async def test_each_fault_of_a_service_has_its_own_action(said: Said, trouble: str, action: int | None) -> None:
    do = mpb.ServiceMonitor
    spec = mpb.ServiceMonitor(
        unit="a.service", not_started=do.Restart, crashed=do.Failover, hung=do.Stop, restarting=do.Ignore
    )
    found = await ServiceCheck(spec, said).look()
    assert (found.trouble, found.action) == (trouble, action)


async def test_a_systemctl_that_fails_is_trouble_of_its_own() -> None:
    with pytest.raises(HasysError, match="systemctl does not answer: no bus"):
        await ServiceCheck(mpb.ServiceMonitor(unit="a.service"), Said("no bus\n", 1)).look()


@pytest.mark.parametrize(
    ("spec", "trouble"),
    [
        (mpb.GroupMonitor(name="db"), ""),
        (mpb.GroupMonitor(name="db", same_node=True), "group db is on n1"),
        (mpb.GroupMonitor(name="off"), "group off is Stopped"),
        (mpb.GroupMonitor(name="off", phases=["Stopped"]), ""),
        (mpb.GroupMonitor(name="none"), "group none does not exist"),
    ],
)
async def test_another_group_is_judged_by_phase_and_node(spec: mpb.GroupMonitor, trouble: str) -> None:
    assert (await GroupCheck(spec, FakeMachine(), "n2").look()).trouble == trouble


async def test_hasys_own_processes_are_judged() -> None:
    assert (await HasysCheck(mpb.HasysMonitor(), FakeMachine()).look()).trouble == "the guard does not answer"
    store = mpb.HasysMonitor(processes=[mpb.HasysMonitor.Store])
    assert (await HasysCheck(store, FakeMachine()).look()).ok


# ---------------------------------------------------------------- words


def test_any_means_that_one_is_enough_and_nothing_is_never_well_by_it() -> None:
    assert judged(mpb.Any, {"a": "bad", "b": ""}).ok
    assert judged(mpb.Any, {"a": "bad", "b": "worse"}).trouble == "bad; worse"
    assert judged(mpb.All, {"a": "bad", "b": ""}).trouble == "bad"
    assert listed("abcdefg") == "a, b, c, d, e and 2 more"
