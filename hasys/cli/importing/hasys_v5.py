"""HA_SYS V5: ``hasys_variable_opt.sh``. Its settings are shell variables; addresses and programs are elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from hasys.cli.importing import shellvars
from hasys.cli.importing.result import Imported, nodes_of
from hasys.cli.importing.shellvars import Assignment

_SECONDS = re.compile(r"\d{1,5}(\.\d{1,3})?")
_OFF = ("", "0", "n", "no", "off", "none", "false", "disable", "disabled")
_INTERVAL = re.compile(r"HB_\w*(INTERVAL|TIME|PERIOD|CYCLE)\w*")
_MISSES = re.compile(r"HB_\w*(COUNT|CNT|RETRY|MISS|FAIL|LIMIT)\w*")
LONGEST_FAST, LONGEST_DEFAULT = 0.8, 3.0
"""Seconds of silence until HA_SYS acted, up to which the profile fast, and default, is the nearest one."""
GATE, EVERY = "failover-condition", "5s"
SHORTEST = 0.1
"""Seconds: the least time-out of a monitor."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the file does not say, from the command line."""

    group: str
    nodes: Sequence[str]
    cluster: str = ""
    device: str = ""
    mount_point: str = ""


def translate(text: str, wanted: Wanted) -> Imported:
    """The manifests for these settings. Never raises for a strange file: what is not understood is left and named."""
    made = Imported()
    assignments, other = shellvars.read(text)
    for line in other:
        made.leave(line, "no assignment")
    known: dict[str, Assignment] = {}
    for one in assignments:
        if one.trouble:
            made.leave(f"line {one.line}: {one.name}", one.trouble)
        else:
            known[one.name] = one  # the last one counts, as in a shell
    gate = _condition(made, known)
    policy = {"failover": {"gates": [GATE]}} if gate else {}
    made.add("Group", wanted.group, {"nodes": nodes_of(wanted.nodes), **policy})
    if gate:
        made.add("Monitor", GATE, gate, wanted.group)
    _disk(made, known, wanted)
    _heartbeat(made, known, wanted)
    for name, one in known.items():
        why = "there is no setting like it: 'hasys get -o yaml' shows what there is"
        if name.startswith("DSYNC_"):
            why = "DRBD's own setting: keep it in drbd.conf, a ReplicatedVolume is what uses it"
        made.leave(f"line {one.line}: {name}={one.value}", why)
    return made


def _disk(made: Imported, known: dict[str, Assignment], wanted: Wanted) -> None:
    wait = _seconds(made, known, "SHARED_DISK_MANAGEMENT_WAIT_TIME")
    if wanted.device and wanted.mount_point:
        spec: dict[str, object] = {"device": wanted.device, "mountPoint": wanted.mount_point}
        if wait is not None:
            spec["unmountTimeout"] = wait
        made.add("SharedDisk", "shared-disk", spec, wanted.group)
    elif wait is not None:
        made.leave(
            "SHARED_DISK_MANAGEMENT_WAIT_TIME",
            f"name the disk: --device and --mount-point; or set spec.unmountTimeout: {wait} of your SharedDisk",
        )


def _condition(made: Imported, known: dict[str, Assignment]) -> dict[str, object]:
    """The monitor of a script that decides whether a failover may proceed: a gate. Empty: there is none."""
    condition = known.pop("FAILOVER_CONDITION_MANAGEMENT", None)
    timeout = _seconds(made, known, "FCONDITION_WTIME")
    if timeout is not None and float(timeout.removesuffix("s")) < SHORTEST:
        made.leave(f"FCONDITION_WTIME={timeout}", f"a script has at least {SHORTEST:g} s; without this it has 3 s")
        timeout = None
    if condition is None or condition.value.lower() in _OFF:
        if timeout is not None:
            made.leave("FCONDITION_WTIME", "no failover condition is switched on")
        return {}
    if not condition.value.startswith("/"):
        where = f"line {condition.line}: FAILOVER_CONDITION_MANAGEMENT={condition.value}"
        made.leave(where, "name your condition script in a Monitor, and that one in spec.failover.gates of the group")
        if timeout is not None:
            made.leave("FCONDITION_WTIME", f"goes with it: timeout: {timeout}")
        return {}
    made.note(
        f"{condition.value}: asked every {EVERY} on each node that does not run the group, not at the failover; it must"
        " tell there, with exit status 0, that the group may come"
    )
    limit = {"timeout": timeout} if timeout is not None else {}
    return {"script": {"command": condition.value.split()}, "on": "Standby", "interval": EVERY, "failures": 1, **limit}


def _heartbeat(made: Imported, known: dict[str, Assignment], wanted: Wanted) -> None:
    """Interval x misses is the silence after which HA_SYS acted; hasys has profiles for that."""
    interval = _one(known, _INTERVAL)
    misses = _one(known, _MISSES)
    if interval is None or misses is None or interval is misses:  # HB_FAIL_TIME might be either
        return  # whatever there is of HB_ is named by the caller
    silence = float(interval.value) * float(misses.value)
    profile = "fast" if silence <= LONGEST_FAST else "default" if silence <= LONGEST_DEFAULT else "wan"
    del known[interval.name], known[misses.name]
    told = f"{interval.name}={interval.value} x {misses.name}={misses.value} is {silence:g} s: profile {profile}"
    if wanted.cluster:
        made.add("Cluster", wanted.cluster, {"profile": profile})
    else:
        made.leave(told, "name the cluster to change its profile: --cluster")


def _one(known: dict[str, Assignment], pattern: re.Pattern[str]) -> Assignment | None:
    """The one setting with such a name and a number above zero; None when there are several or none."""
    found = [one for name, one in known.items() if pattern.fullmatch(name) and _SECONDS.fullmatch(one.value)]
    return found[0] if len(found) == 1 and float(found[0].value) > 0 else None


def _seconds(made: Imported, known: dict[str, Assignment], name: str) -> str | None:
    """A setting in seconds as a duration, taken out of ``known``."""
    one = known.pop(name, None)
    if one is None:
        return None
    if not _SECONDS.fullmatch(one.value) or float(one.value) > 3600:
        made.leave(f"line {one.line}: {name}={one.value}", "expected seconds, at most 3600")
        return None
    return f"{one.value}s"
