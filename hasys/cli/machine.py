"""The checks of ``hasys doctor``: each looks at one thing and says how to mend it. None changes anything."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import platform
import re
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hasys.cli.seed import socket_name
from hasys.config import NodeConfig, Watchdog
from hasys.guard import cgroup
from hasys.guard.arbiter import File, Seat
from hasys.model.errors import ConfigRefused, Refused
from hasys.model.timing import show

GOOD, WARN, BAD = "ok", "look", "bad"

_EGRESS_HOOK = (5, 16)
"""First Linux version whose netdev tables have an egress hook."""
_CGROUP_KILL = (5, 14)
"""First Linux version with cgroup.kill."""
_TIMEX_BYTES = 512
"""Room for ``struct timex`` (208 bytes on 64-bit Linux); all zero it only asks."""
_TIME_ERROR = 5
"""Answer of adjtimex(2): the clock is not synchronised."""
_WATCHDOGS = Path("/sys/class/watchdog")
_SOON_DAYS = 60
_SYNCS = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    state: str
    check: str
    found: str
    mend: str = ""


def root() -> Finding:
    """Nodes need root: addresses, cgroups, nftables."""
    if os.geteuid() == 0:
        return Finding(GOOD, "root", "yes")
    return Finding(BAD, "root", f"user {os.geteuid()}", "run nodes as root (a witness and clients do not need it)")


def python() -> Finding:
    """An older one does not get this far."""
    return Finding(GOOD, "python", f"{platform.python_version()} ({sys.executable})")


def watchdog(settings: Watchdog) -> Finding:
    """Opening the device would arm it: this looks at what the kernel shows. Whether the guard has armed it is told by
    ``hasys status``."""
    there = settings.device.is_char_device()
    name = "watchdog0" if settings.device.name == "watchdog" else settings.device.name
    kind = _line(_WATCHDOGS / name / "identity") or "a watchdog"
    if settings.mode == "off":
        mend = "" if not there else "write 'watchdog: auto' into node.yaml: it resets a node whose guard hangs"
        return Finding(
            WARN if there else GOOD, "watchdog", "off" + (f"; this machine has {kind}" if there else ""), mend
        )
    if not there:
        bad = settings.mode == "required"
        mend = "load its driver (modprobe softdog, or iTCO_wdt, sp5100_tco, i6300esb), or write 'watchdog: off'"
        return Finding(BAD if bad else WARN, "watchdog", f"{settings.mode}, and there is no {settings.device}", mend)
    if _line(_WATCHDOGS / name / "nowayout") == "1":
        mend = "an orderly stop of the node would end in a reset: load the driver with nowayout=0"
        return Finding(WARN, "watchdog", f"{kind} at {settings.device} cannot be stopped", mend)
    return Finding(GOOD, "watchdog", f"{settings.mode}: {kind} at {settings.device}, {settings.timeout} s")


def _line(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def kernel() -> Finding:
    """Both hooks of the netdev family, and cgroup.kill."""
    release = platform.release()
    version = tuple(int(part) for part in re.findall(r"\d+", release)[:2])
    if version >= _EGRESS_HOOK:
        return Finding(GOOD, "kernel", f"Linux {release}")
    if version >= _CGROUP_KILL:
        mend = "before Linux 5.16 a muted address can still leak some traffic out: use a newer kernel"
        return Finding(WARN, "kernel", f"Linux {release}: no egress hook", mend)
    return Finding(BAD, "kernel", f"Linux {release}: no cgroup.kill", "use Linux 5.16 or newer")


def nftables() -> Finding:
    """The kernel holds the lease of an address through libnftables."""
    name = ctypes.util.find_library("nftables") or "libnftables.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return Finding(BAD, "nftables", "libnftables is missing", "apt-get install libnftables1 (or nftables)")
    if os.geteuid() != 0:
        return Finding(WARN, "nftables", f"{name}, not tried", "run the doctor as root to try it")
    library.nft_ctx_new.restype = ctypes.c_void_p
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_buffer_output.argtypes = library.nft_ctx_buffer_error.argtypes = [ctypes.c_void_p]
    library.nft_ctx_free.argtypes = [ctypes.c_void_p]
    context = library.nft_ctx_new(0)
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    answered = library.nft_run_cmd_from_buffer(context, b"list tables") == 0
    library.nft_ctx_free(context)
    if answered:
        return Finding(GOOD, "nftables", f"{name}, the kernel answers")
    return Finding(
        BAD, "nftables", "the kernel does not answer", "modprobe nf_tables; in a container, give CAP_NET_ADMIN"
    )


def cgroups() -> Finding:
    """Processes are stopped by cgroup, also stopped and forking ones."""
    found = cgroup.mount()  # the one that guard and agent use, should there be several
    if found is None:
        mend = "boot with systemd.unified_cgroup_hierarchy=1, or: mount -t cgroup2 none /sys/fs/cgroup/unified"
        return Finding(BAD, "cgroup v2", "not mounted", mend)
    writable = os.access(found, os.W_OK)
    mend = "" if writable else "mount it read-write (containers: --privileged or --cgroupns=private)"
    return Finding(GOOD if writable else BAD, "cgroup v2", f"{found}{'' if writable else ' is read-only'}", mend)


def clock() -> Finding:
    """Safety uses monotonic clocks alone; the wall clock matters for certificates and for reading the history."""
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state not in (-1, _TIME_ERROR):
        return Finding(GOOD, "wall clock", "synchronised")
    mend = "run an NTP client: certificates have dates, and histories of several nodes should read well"
    return Finding(WARN, "wall clock", "not known to be synchronised", mend)


def network_managers() -> Iterable[Finding]:
    """Managers of interfaces that may take a virtual IP away behind hasys."""
    if _active("systemd-networkd"):
        text = "\n".join(_texts("/etc/systemd/networkd.conf", "/etc/systemd/networkd.conf.d"))
        if re.search(r"(?mi)^\s*ManageForeignRoutes\s*=\s*(no|false|0)", text):
            yield Finding(GOOD, "systemd-networkd", "leaves foreign routes alone")
        else:
            mend = (
                "it drops foreign addresses and routes when it restarts: in /etc/systemd/networkd.conf set "
                "[Network] ManageForeignRoutes=no, and KeepConfiguration=yes in the interfaces' .network files"
            )
            yield Finding(WARN, "systemd-networkd", "manages the network", mend)
    if _active("NetworkManager"):
        mend = "it may reset addresses when a profile is activated again: set the service interface to unmanaged"
        yield Finding(WARN, "NetworkManager", "manages the network", mend)


def certificate(check: str, path: Path) -> Finding:
    """Readable, and valid for a while."""
    from hasys.cli.cert import remaining
    from hasys.cli.pki import read_certificate

    try:
        left = remaining(read_certificate(path)).days
    except ConfigRefused as fault:
        return Finding(BAD, check, str(fault), "copy the folder that 'hasys init' wrote again")
    mend = f"hasys cert renew {path.parent} --ca DIR" if left < _SOON_DAYS else ""
    state = BAD if left < 0 else WARN if mend else GOOD
    return Finding(state, check, f"expired {-left} days ago" if left < 0 else f"valid for {left} days", mend)


def addresses(config: NodeConfig) -> Finding:
    """This machine has the addresses that node.yaml gives it."""
    missing = [address for address in config.me.addresses if not is_here(address)]
    if not missing:
        return Finding(GOOD, "addresses", ", ".join(config.me.addresses))
    mend = "set the address on its interface, or run the doctor on the machine that this folder is for"
    return Finding(BAD, "addresses", f"{', '.join(missing)} not on this machine", mend)


def ports(config: NodeConfig) -> Finding:
    """The API and consensus ports are free, or this node uses them itself."""
    from hasys.processes import RoleLock

    if RoleLock(config.run_dir, "store").held():
        return Finding(GOOD, "ports", "in use by this node, which runs")
    taken = [
        socket_name(address, port)
        for address in config.me.addresses
        for port in (config.me.api_port, config.me.raft_port)
        if _taken(address, port)
    ]
    if not taken:
        return Finding(GOOD, "ports", f"{config.me.api_port} and {config.me.raft_port} are free")
    mend = "stop what uses it (ss -ltnp), or choose ADDR:PORT at 'hasys init'"
    return Finding(BAD, "ports", f"{', '.join(taken)} in use by another program", mend)


def disk(folder: Path, bound: float) -> Finding:
    """How long the disk takes to make a small write durable; every acknowledged change waits for that."""
    times = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_SYNCS):
            begun = time.monotonic()
            file.write(b"x" * 512)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.monotonic() - begun)
    found = f"median {show(round(statistics.median(times), 5))}, worst {show(round(max(times), 5))} at {folder}"
    if max(times) <= bound:
        return Finding(GOOD, "durable writes", found)
    mend = f"slower than {show(bound)}, which the timings count with: use a faster disk, or the profile 'wan'"
    return Finding(WARN, "durable writes", found, mend)


def arbiter(seat: Seat, life: float) -> Finding:
    """The disk that decides between two nodes: it can be read, it is ours or empty, and it answers in time. Whether the
    other node sees the same one, only both together know: their guards look for each other's block."""
    check, begun = "arbiter's disk", time.monotonic()
    try:
        file = File(seat)
        try:
            blocks = {node: file.read(node) for node in (seat.node, seat.other)}
        finally:
            file.close()
    except (OSError, Refused) as e:
        mend = "give both nodes the same disk (node.yaml: arbiter), 128 KiB of zeros when it is new"
        return Finding(BAD, check, str(e), mend)
    took = time.monotonic() - begun
    seen = ", ".join(f"{node} {'has written' if block else 'has not written yet'}" for node, block in blocks.items())
    found = f"{seat.path} answers in {show(round(took, 4))}; {seen}"
    if took > life / 10:
        return Finding(WARN, check, found, f"slow: a lock that is not renewed for {show(life)} is lost")
    return Finding(GOOD, check, found)


def is_here(address: str) -> bool:
    """Has this machine the address?"""
    return _bind_error(address, 0) != errno.EADDRNOTAVAIL


def _taken(address: str, port: int) -> bool:
    return _bind_error(address, port) == errno.EADDRINUSE


def _bind_error(address: str, port: int) -> int:
    """The error number of listening there for a moment; 0 for none."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _active(unit: str) -> bool:
    """Does systemd run it? Without systemd there is none of these managers to look for."""
    return any(
        Path(process, "comm").read_text().strip() == unit[:15]
        for process in Path("/proc").glob("[0-9]*")
        if Path(process, "comm").exists()
    )


def _texts(*places: str) -> Iterable[str]:
    for place in map(Path, places):
        files = sorted(place.glob("*.conf")) if place.is_dir() else [place]
        for file in files:
            if file.is_file():
                yield file.read_text("utf-8", "replace")
