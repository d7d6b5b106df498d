"""Two real guests with hasys inside, a witness beside them, and somebody who asks who holds the address.

QEMU runs them by emulation where the machine has no KVM (it then burns whole processors, and everything in the guests
is about ten times slower than outside), so: profile ``wan``, bounds that say so, and the witness, the client and the
observer run on the host. Guests, witness and observer share one bridge in a network namespace of this process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from hasys.lab.cluster import hasys_command
from hasys.lab.frames import ARP_TAGS, Asker
from hasys.lab.shell import run, until

ROOT = Path(__file__).parents[2]
VMLAB = ROOT.parent / "shared" / "vmlab" / "vmlab.py"
BUILT = Path(os.environ.get("HASYS_VM_DIR", "/var/tmp/hasys-vm"))
NET = "10.99.0"
HOST, VIP = f"{NET}.254", f"{NET}.100"
NODES = ("n1", "n2")
MEMORY = 512
"""MiB of a guest."""
WATCHDOG = 10
"""Seconds: the shortest that profile wan allows."""
BOOT = float(os.environ.get("HASYS_VM_BOOT", "240"))
READY = 300.0
"""Seconds for what takes 15 and 40 on an idle machine of two processors without KVM."""
_ETH_P_ARP = 0x0806
_CLONE_NEWNET = 0x40000000
_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)

REBOOT = """reboot: {command: [sh, -c, "sync; echo b >/proc/sysrq-trigger; sleep 60"], timeout: 90s}
"""
"""Of node.yaml: how a node reboots itself where systemd is not process 1."""

FIREWALL = """flush ruleset
table inet filter { chain input { type filter hook input priority 0; policy accept; }; }
"""
"""What a firewall's service loads: before hasys at each boot, and again when it is restarted."""

MANIFEST = f"""apiVersion: hasys/v1
kind: Group
metadata: {{name: web}}
spec: {{nodes: [{{name: n1, priority: 100}}, {{name: n2, priority: 50}}]}}
---
apiVersion: hasys/v1
kind: VirtualIP
metadata: {{name: web-ip, group: web}}
spec: {{address: {VIP}/24, interface: eth0}}
---
apiVersion: hasys/v1
kind: Application
metadata: {{name: web-app, group: web}}
spec:
  after: [web-ip]
  run: {{command: [sleep, "1000000"]}}
"""


def missing() -> str:
    """Why this machine cannot run guests; empty: it can."""
    if os.geteuid() != 0:
        return "guests need root (a network namespace, taps)"
    if not shutil.which("qemu-system-x86_64"):
        return "QEMU is missing: apt-get install --no-install-recommends qemu-system-x86 mmdebstrap"
    if not VMLAB.is_file():
        return f"{VMLAB} is missing: the lab of guests lies beside the checkout"
    if not (shutil.which("mmdebstrap") or (BUILT / "vmlinux").exists()):
        return "mmdebstrap is missing: apt-get install --no-install-recommends mmdebstrap"
    return ""


def vmlab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vmlab", VMLAB)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Answers:
    """Asks each guest by its MAC address whether it holds the address, again and again; never stops."""

    PERIOD = 0.02

    def __init__(self, macs: dict[str, str]) -> None:
        self._macs = {bytes.fromhex(mac.replace(":", "")): name for name, mac in macs.items()}
        self.seen: list[tuple[float, float, str]] = []
        """(asked, answered, guest), monotonic seconds."""
        self._link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ARP))
        self._link.bind(("br0", _ETH_P_ARP))
        own = self._link.getsockname()[4]
        self._asker = Asker(own, ipaddress.IPv4Address(HOST), ipaddress.IPv6Address("::1"), 1)
        threading.Thread(target=self._ask, name="answers", daemon=True).start()

    def _ask(self) -> None:
        asked: dict[tuple[bytes, int], float] = {}
        number = 0
        while True:
            number += 1
            for mac in self._macs:
                asked[mac, number % ARP_TAGS] = time.monotonic()
                try:
                    self._link.send(self._asker.who_has(mac, VIP, number))
                except OSError:
                    continue
            time.sleep(self.PERIOD)
            self._take(asked)

    def _take(self, asked: dict[tuple[bytes, int], float]) -> None:
        while True:
            try:
                frame = self._link.recv(2048)
            except BlockingIOError:
                return
            found = self._asker.arp_answer(frame) if len(frame) >= 42 else None
            if found is None or found[0] != VIP or frame[6:12] not in self._macs:
                continue
            since = asked.pop((frame[6:12], found[1]), None)
            if since is not None:
                self.seen.append((since, time.monotonic(), self._macs[frame[6:12]]))

    def last(self, guest: str, since: float = 0.0) -> float | None:
        """When the guest last answered a question asked after ``since``."""
        return max((at for asked, at, name in self.seen if name == guest and asked >= since), default=None)

    def first(self, guest: str, since: float) -> float | None:
        return min((at for asked, at, name in self.seen if name == guest and asked >= since), default=None)

    def holders(self, within: float = 1.0) -> set[str]:
        now = time.monotonic()
        return {name for asked, _, name in list(self.seen)[-500:] if asked >= now - within}

    def overlaps(self, since: float) -> list[str]:
        """Where one guest answered what it was asked after another had begun to, and before that one had ended."""
        found, seen = [], sorted(s for s in list(self.seen) if s[0] >= since)
        for (asked, answered, name), (later, _, other), (_, back, again) in zip(seen, seen[1:], seen[2:], strict=False):
            if name == again != other and answered <= later:
                found.append(f"{name} and {other} between {asked:.3f} and {back:.3f}")
        return found


class Stage:
    """The cluster: guests n1 and n2, the witness w, the observer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lab = vmlab()
        if not (BUILT / "vmlinux").exists():
            lab.build(BUILT)  # from Debian: before this process has no network but its own
        self._network()
        run(
            *hasys_command(), "init", "--cluster", "vm", "--profile", "wan", "--out", str(folder / "cluster"),
            "--node", f"n1={NET}.1", "--node", f"n2={NET}.2", "--witness", f"w={HOST}",
        )  # fmt: skip
        for name in NODES:
            with (folder / "cluster" / name / "node.yaml").open("a") as file:
                file.write(f"watchdog: {{mode: required, timeout: {WATCHDOG}s}}\n{REBOOT}")
        with (folder / "cluster" / "w" / "node.yaml").open("a") as file:
            file.write(f"runDir: {folder}/w\n")
        self.client = folder / "cluster" / "client" / "client.yaml"
        accel = lab.probe(BUILT)
        self.slow = accel != "kvm"
        self.guests = {name: self._guest(lab, name, number, accel) for number, name in enumerate(NODES, 1)}
        self.boots = dict.fromkeys(NODES, 0)
        self.answers = Answers({name: f"52:54:00:77:00:{i:02x}" for i, name in enumerate(NODES, 1)})
        self.conformed = ""
        """What the guest's watchdog was found to keep, before anything else used it."""
        self.witness: subprocess.Popen[bytes] | None = None

    def _network(self) -> None:
        """A network namespace of this thread, and of what it starts."""
        self._before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if _LIBC.unshare(_CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", f"{HOST}/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        for name in NODES:
            run("ip", "tuntap", "add", f"tap-{name}", "mode", "tap")
            run("ip", "link", "set", f"tap-{name}", "master", "br0", "up")

    def _guest(self, lab: ModuleType, name: str, number: int, accel: str) -> Any:
        disks = self._disks(name)
        shares = [(str(ROOT), str(ROOT)), (str(self.folder / "cluster"), "/cluster")]
        base = str(Path(sys.base_prefix).resolve())
        if not base.startswith("/usr"):
            shares.append((base, base))
        return lab.Guest(
            BUILT, name, [f"{NET}.{number}/24"], [f"tap-{name}"], disks=disks, mem=MEMORY, accel=accel,
            run=self.folder / "run", shares=shares,
            append="vml.state=/dev/vda no_timer_check",  # an emulated timer that is late is no broken one
        )  # fmt: skip

    def _disks(self, name: str) -> list[str]:
        """Images of a guest's disks, as /dev/vda and so on; the first one holds its state."""
        disk = self.folder / f"{name}.img"
        with disk.open("wb") as file:
            file.truncate(96 << 20)
        run("mkfs.ext4", "-q", "-F", str(disk))  # with a journal: the note and the log must survive a power cut
        return [str(disk)]

    # ------------------------------------------------------------ life
    def power_on(self, *names: str) -> None:
        """Boot, then start the node as a service would."""
        for name in names:
            self.guests[name].start()
            self.boots[name] = 0
        for name in names:
            self.boot(name)

    def boot(self, name: str) -> float:
        """Wait for the next boot of a guest and start hasys in it; returns when the boot was over (monotonic)."""
        at = self.wait_boot(name)
        self.run_node(name)
        return at

    def wait_boot(self, name: str) -> float:
        """Wait for the next boot of a guest; returns when it was over (monotonic)."""
        guest = self.guests[name]
        self.boots[name] += 1
        guest.wait_boot(self.boots[name], BOOT)
        return time.monotonic()

    def run_node(self, name: str) -> None:
        """Start hasys, after what a machine has at its boot."""
        guest = self.guests[name]
        guest.sh(f"mkdir -p /state/{name}; cp -n /cluster/{name}/* /state/{name}/; chmod 600 /state/{name}/*")
        guest.sh("modprobe softdog && ls /dev/watchdog")
        guest.sh("nft -f -", stdin=FIREWALL)
        if name == NODES[0] and not self.conformed:
            self.conformed = guest.sh(f"cd {ROOT} && {sys.executable} -m tests.conformance.watchdog", timeout=120)
        command = " ".join([*hasys_command(), "node", "run", "--config", f"/state/{name}/node.yaml"])
        guest.sh(f"setsid {command} >>/state/log 2>&1 </dev/null & echo started")

    def start_witness(self) -> None:
        """The store alone, which is all that a witness is: without a supervisor that would outlive or restart it."""
        log = (self.folder / "w.log").open("ab")
        self.witness = subprocess.Popen(
            [*hasys_command(), "store", "run", "--config", str(self.folder / "cluster" / "w" / "node.yaml")],
            stdout=log, stderr=log, preexec_fn=lambda: _LIBC.prctl(_PDEATHSIG, signal.SIGKILL),
        )  # fmt: skip

    def stop_witness(self) -> None:
        """Without a word, as when its power goes."""
        assert self.witness is not None
        self.witness.kill()
        self.witness.wait()

    def close(self) -> None:
        for guest in self.guests.values():
            guest.stop()
        if self.witness is not None and self.witness.poll() is None:
            self.stop_witness()
        _LIBC.setns(self._before, _CLONE_NEWNET)
        os.close(self._before)

    # ------------------------------------------------------------ looking
    def hasys(self, *argv: str, timeout: float = 60.0) -> str:
        return run(*hasys_command(), "--context", str(self.client), *argv, timeout=timeout)

    def status(self) -> dict[str, Any]:
        """Empty while no server answers."""
        try:
            found: dict[str, Any] = json.loads(self.hasys("status", "-o", "json"))
        except Exception:
            return {}
        return found if found.get("groups") else {}

    def settle(self) -> str:
        """Wait until both nodes are ready with their watchdog armed, and the group runs; returns its Active.

        After a cold start the status shows what was stored before it until the agent reports, which emulation makes
        long: that the address answers is waited for as long as everything else.
        """

        def active() -> str:
            status = self.status()
            nodes = [n for n in status.get("nodes", ()) if n["role"] == "Voter"]
            well = [n for n in nodes if n["state"] == "Ready" and n["guard"]["watchdog"] == f"watchdog {WATCHDOG}s"]
            group: dict[str, Any] = next((g for g in status.get("groups", ()) if g["name"] == "web"), {})
            return group["active"] if len(well) == 2 and group.get("phase") == "Running" and group["redundant"] else ""

        found = until(active, READY, "two ready nodes and a running group", every=1.0)
        until(lambda: self.answers.holders() == {found}, READY, "the address")
        return found

    def other(self, name: str) -> str:
        return next(n for n in NODES if n != name)

    def wait_active(self, name: str, timeout: float, group: str = "web") -> None:
        def there() -> bool:
            groups = [g for g in self.status().get("groups", ()) if g["name"] == group]
            return any(g["active"] == name and g["phase"] == "Running" for g in groups)

        until(there, timeout, f"group {group} on {name}", every=0.5)

    def told(self, reason: str, *words: str, within: float = 60.0) -> str:
        """Wait for an event; returns its text."""

        def message() -> str:
            found = json.loads(self.hasys("events", "--limit", "200", "-o", "json"))
            texts = [e["message"] for e in found if e["reason"] == reason]
            return next((t for t in reversed(texts) if all(word in t for word in words)), "")

        return until(message, within, f"an event {reason} with {words}", every=1.0)

    def log(self, name: str) -> str:
        return str(self.guests[name].sh("tail -n 40 /state/log", check=False)[1])
