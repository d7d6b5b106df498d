"""A stand-in for DRBD: /proc/drbd, drbdadm and drbdsetup of one resource, by a file that tests may write.

What it answers is held against tests/conformance/drbd.py, as the real one is in a guest (``make vm-test``).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hasys.drbd import Kernel

PROC_8 = """\
version: 8.4.11 (api:1/proto:86-101)
srcversion: 5B6F3F47D6A9B2F8C6F6AB1
"""
STATES_8 = """\
 {minor}: cs:{state} ro:{role}/{peer_role} ds:{disk}/{peer_disk} C r-----
    ns:0 nr:0 dw:0 dr:0 al:0 bm:0 lo:0 pe:0 ua:0 ap:0 ep:1 wo:f oos:{oos}
"""
PROC_9 = """\
version: 9.1.23 (api:2/proto:86-121)
GIT-hash: 0000000000000000000000000000000000000000 build by nobody@nowhere, 2024-11-20 00:00:00
Transports (api:20): tcp (9.1.23)
"""
PROGRAM = """\
#!{python} -IS
import json, os, sys
with open({state!r}) as f:
    s = json.load(f)
name, verb, words = os.path.basename(sys.argv[0]), sys.argv[1], sys.argv[2:]
with open({calls!r}, "a") as f:
    f.write(" ".join([verb, *words]) + "\\n")

def fail(code, text):
    sys.stderr.write(text + "\\n")
    sys.exit(code)

def refuse(code, text):
    sys.stderr.write(s["resource"] + ": State change failed: " + text + "\\n")
    fail(code, "Command 'drbdsetup " + verb + " " + s["resource"] + "' terminated with exit code " + str(code))

if words[0] != s["resource"]:
    fail(10, words[0] + ": No such resource" if name == "drbdsetup" else
         "'" + words[0] + "' not defined in your config (for this host).")
connected = s["state"] not in ("StandAlone", "WFConnection", "Connecting")
if name == "drbdsetup":
    if not s["up"]:
        fail(10, words[0] + ": No such resource")
    peer = dict(volume=0)
    peer["replication-state"] = s["state"] if connected else "Off"
    peer["peer-disk-state"], peer["out-of-sync"] = s["peer_disk"], s["oos"]
    connection = dict(name="n2", peer_devices=[peer])
    connection["connection-state"] = "Connected" if connected else s["state"]
    connection["peer-role"] = s["peer_role"]
    device = dict(volume=0, minor=s["minor"], size=s["size"])
    device["disk-state"] = s["disk"]
    print(json.dumps([dict(name=s["resource"], role=s["role"], devices=[device], connections=[connection])]))
elif verb == "primary":
    if connected and s["peer_role"] == "Primary":
        refuse(11, "(-1) Multiple primaries not allowed by config")
    if s["disk"] != "UpToDate" and not (connected and s["peer_disk"] == "UpToDate"):
        refuse(17, "(-2) Need access to UpToDate data")
    s["role"] = "Primary"
elif verb == "secondary":
    with open("/proc/self/mounts") as f:
        mounted = any(line.split()[0] == s["device"] for line in f)
    if s["role"] == "Primary" and (mounted or s["held"]):
        refuse(11, "(-12) Device is held open by someone")
    s["role"] = "Secondary"
elif verb == "outdate":
    s["disk"] = "Outdated"
elif verb == "disconnect":
    s["state"], s["peer_role"], s["peer_disk"] = "StandAlone", "Unknown", "DUnknown"
elif verb == "connect":
    s["state"] = s["searching"]
elif verb == "down":
    s["up"], s["role"] = False, "Secondary"
elif verb == "up":
    s["up"], s["state"] = True, s["searching"]
else:
    fail(20, "Unknown command '" + verb + "'")
with open({state!r} + ".new", "w") as f:
    json.dump(s, f)
os.replace({state!r} + ".new", {state!r})
if s["version"] == 8:
    with open({proc!r} + ".new", "w") as f:
        f.write({proc_8!r} + ({states_8!r}.format(**s) if s["up"] else ""))
    os.replace({proc!r} + ".new", {proc!r})
"""


@dataclass(frozen=True, slots=True)
class FakeKernel(Kernel):
    """Any path is the device of that minor number."""

    number: int = 0

    def minor(self, device: str) -> int | None:
        return self.number


class FakeDrbd:
    """One resource, ``r0``, that is up, Secondary and in step with a Secondary on another node."""

    resource = "r0"

    def __init__(self, folder: Path, version: int = 8, device: str = "/dev/drbd0") -> None:
        self.device, self.version = device, version
        self._state, self._calls, proc = folder / "state.json", folder / "calls", folder / "proc"
        folder.mkdir()
        settled, self.searching = ("Connected", "WFConnection") if version == 8 else ("Established", "Connecting")
        start: dict[str, Any] = {
            "resource": self.resource, "minor": 0, "version": version, "device": device, "searching": self.searching,
            "up": True, "held": False, "size": 65536, "oos": 0, "state": settled,
            "role": "Secondary", "disk": "UpToDate", "peer_role": "Secondary", "peer_disk": "UpToDate",
        }  # fmt: skip
        text = PROGRAM.format(
            python=sys.executable, state=str(self._state), calls=str(self._calls), proc=str(proc),
            proc_8=PROC_8, states_8=STATES_8,
        )  # fmt: skip
        for name in ("drbdadm", "drbdsetup"):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self._proc = proc
        self.kernel = FakeKernel(proc, folder / "block", f"{folder}/")
        size = folder / "block" / f"{self.kernel.major}:0" / "size"
        size.parent.mkdir(parents=True)
        size.write_text(f"{start['size'] * 2}\n")
        self._put(start)

    def set(self, **changes: object) -> None:
        """As if something had happened to it: role, disk, state, peer_role, peer_disk, oos, held, up."""
        self._put({**json.loads(self._state.read_text()), **changes})

    @property
    def role(self) -> str:
        return str(json.loads(self._state.read_text())["role"])

    @property
    def calls(self) -> list[str]:
        """What drbdadm was told."""
        said = self._calls.read_text().splitlines() if self._calls.exists() else []
        return [line for line in said if not line.startswith("status")]

    def adm(self, *words: str) -> tuple[int, str]:
        """Exit status of drbdadm, and what it said."""
        done = subprocess.run(
            [self.kernel.program("drbdadm"), *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False,
        )  # fmt: skip
        return done.returncode, done.stdout

    def _put(self, state: dict[str, Any]) -> None:
        self._state.write_text(json.dumps(state))
        told = STATES_8.format(**state) if state["up"] else ""
        self._proc.write_text(PROC_9 if self.version == 9 else PROC_8 + told)
