"""What the rules of the schema cannot say of a monitor: which of its settings go together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit

from hasys.api.rules import Problem, fields_of
from hasys.model.view import Phase
from hasys.v1 import monitors_pb2 as mpb

_COMMON = 30
"""Fields from this number on are settings; those below say what is watched."""
WATCHES = {
    field.name: field.spelling
    for field in fields_of(mpb.MonitorSpec.DESCRIPTOR)
    if field.descriptor.number < _COMMON
}  # fmt: skip
"""What a monitor can watch: field name and spelling in manifests."""
PATTERN = 1_000
"""Most characters of a pattern of command lines."""


def watched(spec: mpb.MonitorSpec) -> str:
    """What a monitor watches, in manifest spelling; empty when it does not say."""
    return next((spelling for name, spelling in WATCHES.items() if spec.HasField(name)), "")  # type: ignore[arg-type]


def check(spec: mpb.MonitorSpec) -> Iterator[Problem]:
    """What is wrong with a spec of which every single field is right."""
    yield from _actions(spec)
    kind = watched(spec)
    path = f"spec.{kind}"
    match kind:
        case "process":
            yield from _some(path, "names or patterns", spec.process.names, spec.process.patterns)
            yield from _texts(f"{path}.names", spec.process.names)
            yield from _texts(f"{path}.patterns", spec.process.patterns)
        case "processCount":
            yield from _bounds(path, spec.process_count)
        case "network":
            yield from _some(path, "interfaces or addresses", spec.network.interfaces, spec.network.addresses)
        case "ping":
            if not spec.ping.addresses and not spec.ping.gateway:
                yield path, "names nothing to ask: give addresses, or gateway: true"
        case "traffic":
            yield from _bounds(path, spec.traffic)
        case "tcp":
            if spec.tcp.send and not spec.tcp.expect:
                yield f"{path}.send", "nothing is expected in return: give expect too"
        case "http":
            yield from _http(spec.http)
        case "script":
            part = spec.script
            if part.HasField("minimum") and part.HasField("maximum") and part.minimum > part.maximum:
                yield f"{path}.minimum", f"{part.minimum} is more than the maximum, {part.maximum}"
        case "mount":
            if spec.mount.unmounted and spec.mount.read_only_allowed:
                yield f"{path}.unmounted", "what is not mounted is not read-only either: take out one of the two"
        case "volume":
            if spec.volume.device and (spec.volume.HasField("used_limit") or spec.volume.write):
                yield f"{path}.device", "a device has no files: usedLimit and write need path"
        case "group":
            known = [phase.value for phase in Phase]
            for number, phase in enumerate(spec.group.phases):
                if phase not in known:
                    yield f"{path}.phases[{number}]", f"{phase[:40]!r} is unknown: use {', '.join(known)}"


def check_names(spec: mpb.MonitorSpec, resources: Mapping[str, str]) -> Iterator[Problem]:
    """Names of resources (name -> kind) that the group does not have."""
    restarted = spec.restart.resource
    if restarted and restarted not in resources:
        yield "spec.restart.resource", _unknown(restarted, sorted(resources))
    addresses = sorted(name for name, kind in resources.items() if kind == "VirtualIP")
    for number, name in enumerate(spec.virtual_ip.resources):
        if name not in addresses:
            yield f"spec.virtualIP.resources[{number}]", _unknown(name, addresses)
    volumes = sorted(name for name, kind in resources.items() if kind == "ReplicatedVolume")
    if spec.HasField("replication") and spec.replication.volume not in volumes:
        yield "spec.replication.volume", _unknown(spec.replication.volume, volumes)


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"the group has no {name!r}: it has {', '.join(known) or 'none'}"


def _actions(spec: mpb.MonitorSpec) -> Iterator[Problem]:
    restarts = spec.action == mpb.MonitorSpec.Restart or mpb.ServiceMonitor.Restart in (
        spec.service.not_started, spec.service.crashed, spec.service.hung, spec.service.restarting,
    )  # fmt: skip
    if restarts and not spec.HasField("restart"):
        yield "spec.restart", "is missing: action Restart needs a resource or a command"
    if spec.HasField("restart") and not restarts:
        yield "spec.restart", "is never used: set action: Restart, or take it out"
    where = mpb.MonitorSpec.Where.Name(spec.on)
    if where != "Active" and restarts:
        yield "spec.on", f"a restart happens where the group runs: take out on: {where}, or choose another action"
    if where != "Active" and spec.HasField("virtual_ip"):
        yield "spec.on", f"a virtual IP is on the Active only: take out on: {where}"
    if where == "Standby" and spec.action == mpb.MonitorSpec.Stop:
        yield "spec.action", "the group does not run on a Standby: there is nothing to stop"


def _some(path: str, names: str, *lists: Sequence[str]) -> Iterator[Problem]:
    if not any(lists):
        yield path, f"names nothing to watch: give {names}"


def _texts(path: str, texts: Sequence[str]) -> Iterator[Problem]:
    for number, text in enumerate(texts):
        if not text or len(text) > PATTERN:
            yield f"{path}[{number}]", f"must have 1 to {PATTERN} characters"


def _bounds(path: str, part: mpb.ProcessCountMonitor | mpb.TrafficMonitor) -> Iterator[Problem]:
    if not part.HasField("minimum") and not part.HasField("maximum"):
        yield path, "has no limit: give minimum, maximum or both"
    elif part.HasField("minimum") and part.HasField("maximum") and part.minimum > part.maximum:
        yield f"{path}.minimum", f"{part.minimum} is more than the maximum, {part.maximum}"


def _http(part: mpb.HttpMonitor) -> Iterator[Problem]:
    path = "spec.http.url"
    try:
        url = urlsplit(part.url)
        port = url.port
    except ValueError as e:
        yield path, f"is no URL: {e}"
        return
    if url.scheme not in ("http", "https") or not url.hostname:
        yield path, "is no URL of a web server: write it like http://127.0.0.1:8080/health"
    elif port == 0 or any(ord(letter) <= 32 or ord(letter) == 127 for letter in part.url):
        yield path, "has port 0, white space or control characters in it"
    elif url.username or url.password:
        yield path, "must not hold a password: everybody who may read the group could read it"
    for number, status in enumerate(part.statuses):
        if not 100 <= status <= 599:
            yield f"spec.http.statuses[{number}]", f"{status} is no HTTP status: 100 to 599"
