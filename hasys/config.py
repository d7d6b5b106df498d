"""node.yaml: who this node is, where the members are, which keys it holds. Written by ``hasys init``.

The file seeds; what may change in operation (timings, placement) is a replicated object instead.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hasys.files import refuse_exposed
from hasys.model import telemetry
from hasys.model.errors import ConfigRefused
from hasys.model.telemetry import Telemetry
from hasys.model.timing import BY_NAME, PROFILES, Timing, TimingRefused, figures, profile

API_PORT, RAFT_PORT, LEASE_PORT = 7411, 7412, 7413
"""Default ports: gRPC API, consensus, lease datagrams (UDP). ``ADDR:PORT`` at init sets API; the others follow."""

SAFE, ARBITER, ALONE_ALLOWED = "safe", "arbiter", "alone-allowed"
POLICIES = (SAFE, ARBITER, ALONE_ALLOWED)
"""What two nodes without a third voter do when one does not hear the other: docs/two-nodes.md."""
TAKING_OVER = (ARBITER, ALONE_ALLOWED)
"""Policies under which a node may take a group over without its peer."""
WATCHDOGS = ("off", "auto", "required")
"""How a node uses the watchdog of its machine: not at all; if there is one; or never without (docs/fencing.md)."""
ROLES = ("Voter", "Witness", "Observer")
LABEL = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the cluster as others reach it."""

    name: str
    role: str
    addresses: tuple[str, ...]
    """One IP per network: first public, second heartbeat."""
    api_port: int = API_PORT
    raft_port: int = RAFT_PORT
    lease_port: int = LEASE_PORT

    @property
    def votes(self) -> bool:
        return self.role in ("Voter", "Witness")

    @property
    def runs_groups(self) -> bool:
        return self.role != "Witness"


@dataclass(frozen=True, slots=True)
class Watchdog:
    """How the guard uses the machine's watchdog."""

    mode: str = "off"
    """One of :data:`WATCHDOGS`."""
    device: Path = Path("/dev/watchdog")
    timeout: int = 10
    """Seconds without a pet until the machine is reset; the driver may grant another one."""


@dataclass(frozen=True, slots=True)
class Log:
    """What this node's processes write about themselves."""

    form: str = "text"
    """``text``, or ``json``: one object per line."""
    size: int = 1 << 20
    """Bytes of one process's log file, of ``hasys node run``; then it is kept aside and begun anew."""
    keep: int = 1
    """Full files that are kept, of each process."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """The checked content of node.yaml. Paths are absolute."""

    path: Path
    cluster: str
    cluster_id: str
    name: str
    members: tuple[Member, ...]
    profile: str
    ca: Path
    certificate: Path
    key: Path
    lease_secret: Path
    """Voters: the cluster's lease secret, from which each node's key is derived. Others: their own key alone."""
    node_secret: Path
    data_dir: Path
    run_dir: Path
    policy: str = ""
    """Two voters alone: what stands in for the third, one of :data:`POLICIES`. Empty: a majority decides."""
    arbiter: Path | None = None
    """Policy arbiter: the disk that both nodes write to."""
    common_start: CommonStart | None = None
    common_stop: CommonStop | None = None
    watchdog: Watchdog = Watchdog()
    log: Log = Log()
    telemetry: Telemetry | None = None
    """What this node exports; None: nothing."""
    reboot: RebootCommand | None = None
    """None: this node never reboots itself."""
    timing: Timing | None = None
    """None: what the profile's name means alone."""

    @property
    def me(self) -> Member:
        return self.member(self.name)

    def member(self, name: str) -> Member:
        """The member of that name; KeyError when there is none."""
        for m in self.members:
            if m.name == name:
                return m
        raise KeyError(name)

    @property
    def voters(self) -> tuple[Member, ...]:
        return tuple(m for m in self.members if m.votes)

    @property
    def instance(self) -> str:
        """Name of this node's run-time things (sockets, cgroups, kernel tables): several nodes can share a machine."""
        return f"{self.cluster}-{self.name}"

    @property
    def store_trouble(self) -> Path:
        """Why the store of this node cannot run, in one line, while that is so."""
        return self.run_dir / "store.trouble"

    @property
    def guard_socket(self) -> Path:
        return self.run_dir / "guard.sock"

    @property
    def tokens(self) -> Path:
        """What this node may start alone (docs/two-nodes.md); outlives the machine's power."""
        return self.data_dir / "tokens"

    @property
    def guard_notes(self) -> Path:
        """What the guard holds, for the time after a reset (hasys.guard.notes)."""
        return self.data_dir / "guard.notes"

    def seed_timing(self) -> Timing:
        """The timing that a new cluster starts with."""
        return self.timing or BY_NAME[self.profile]


@dataclass(frozen=True, slots=True)
class CommonStart:
    """A command that this node runs once per boot before it gets any role. Durations in seconds."""

    command: tuple[str, ...]
    timeout: float = 300.0
    wait: float = 0.0
    """From its end until roles may begin."""
    go_on: bool = False
    """``onFailure: Continue``: roles may begin though it failed; else it is tried again, and the node stays unready."""


@dataclass(frozen=True, slots=True)
class RebootCommand:
    """What this node runs when a group that asks for it has failed over from it."""

    command: tuple[str, ...]
    timeout: float = 60.0
    """Seconds."""


@dataclass(frozen=True, slots=True)
class CommonStop:
    """A command that this node runs when it is stopped in order, after its groups have gone."""

    command: tuple[str, ...]
    timeout: float = 300.0


class _Plain(yaml.SafeLoader):
    """Without aliases: a few lines of them stand for more text than memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # as the stubs have it
            raise yaml.constructor.ConstructorError(None, None, "aliases (*) are not taken here", mark)
        return super().compose_node(parent, index)


def read_yaml(text: str) -> Any:
    """A settings file's content. Raises ``yaml.YAMLError`` and nothing else, whatever the text is."""
    try:
        return yaml.load(text, Loader=_Plain)  # noqa: S506  (a SafeLoader)
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    except (ValueError, OverflowError) as e:  # what looks like a number or a date and is none
        raise yaml.YAMLError(str(e)) from None


def load(path: Path | str) -> NodeConfig:
    """Read and check node.yaml. Raises :class:`ConfigRefused` with file, field and mend in one line."""
    path = Path(path)
    if path.is_dir():
        path = path / "node.yaml"
    try:
        text = path.read_text("utf-8")
    except OSError as e:
        raise ConfigRefused(f"{path}: {e.strerror}: give the node.yaml that 'hasys init' wrote") from None
    except UnicodeDecodeError:
        raise ConfigRefused(f"{path}: not UTF-8 text") from None
    try:
        raw = read_yaml(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigRefused(f"{path}{line}: not YAML: {getattr(e, 'problem', e)}") from None
    return _Reader(path.resolve(), raw).config()


_SIZE = re.compile(r"(\d{1,6})(KiB|MiB)")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h)")


class _Reader:
    """Reads one mapping and names the field of every fault."""

    KEYS = frozenset({
        "cluster", "clusterId", "node", "members", "profile", "timing", "tls", "leaseSecret", "nodeSecret", "dataDir",
        "runDir", "policy", "arbiter",
        "commonStart", "commonStop", "watchdog", "telemetry", "log", "reboot",
    })  # fmt: skip

    def __init__(self, path: Path, raw: Any) -> None:
        self.path = path
        if not isinstance(raw, dict):
            raise ConfigRefused(f"{path}: expected a mapping with the fields {', '.join(sorted(self.KEYS))}")
        self.raw = raw
        for key in raw:
            if key not in self.KEYS:
                self.refuse(str(key), f"unknown field; known are {', '.join(sorted(self.KEYS))}")

    def refuse(self, field: str, why: str) -> Any:
        raise ConfigRefused(f"{self.path}: {field}: {why}")

    def text(self, source: dict[str, Any], key: str, where: str, default: str | None = None) -> str:
        value = source.get(key, default)
        if not isinstance(value, str) or not value:
            self.refuse(where, f"expected text, got {value!r}")
        return str(value)

    def label(self, source: dict[str, Any], key: str, where: str) -> str:
        value = self.text(source, key, where)
        if not LABEL.match(value):
            self.refuse(where, f"{value!r} is no DNS label: use a-z, 0-9 and '-', at most 63 characters")
        return value

    def file(self, source: dict[str, Any], key: str, where: str, default: str) -> Path:
        return self.path.parent / self.text(source, key, where, default)

    def members(self) -> tuple[Member, ...]:
        raw = self.raw.get("members")
        if not isinstance(raw, list) or not raw or len(raw) > 100:
            self.refuse("members", "expected a list of 1 to 100 members")
        members = tuple(self.member(i, m) for i, m in enumerate(raw or ()))
        names = [m.name for m in members]
        if len(set(names)) != len(names):
            self.refuse("members", "two members have the same name")
        seen: dict[tuple[str, int], str] = {}
        for m in members:
            for a in m.addresses:
                for port in {m.api_port, m.raft_port}:
                    if seen.setdefault((a, port), m.name) != m.name:
                        self.refuse("members", f"{m.name} and {seen[a, port]} both use {a} port {port}")
        return members

    def member(self, i: int, raw: Any) -> Member:
        where = f"members[{i}]"
        if not isinstance(raw, dict):
            self.refuse(where, "expected a mapping with name, role, addresses")
        for key in raw:
            if key not in ("name", "role", "addresses", "apiPort", "raftPort", "leasePort"):
                self.refuse(f"{where}.{key}", "unknown field")
        role = self.text(raw, "role", f"{where}.role", "Voter")
        if role not in ROLES:
            self.refuse(f"{where}.role", f"{role!r}: use one of {', '.join(ROLES)}")
        addresses = raw.get("addresses")
        if not isinstance(addresses, list) or not 1 <= len(addresses) <= 8:
            self.refuse(f"{where}.addresses", "expected a list of 1 to 8 IP addresses")
        for a in addresses:
            try:
                ipaddress.ip_address(a)
            except ValueError:
                self.refuse(f"{where}.addresses", f"{a!r} is no IP address")
        ports = {}
        for key, default in (("apiPort", API_PORT), ("raftPort", RAFT_PORT), ("leasePort", LEASE_PORT)):
            port = raw.get(key, default)
            if not isinstance(port, int) or isinstance(port, bool) or not 1 <= port <= 65535:
                self.refuse(f"{where}.{key}", f"{port!r} is no port: use 1 to 65535")
            ports[key] = port
        return Member(
            self.label(raw, "name", f"{where}.name"), role, tuple(str(a) for a in addresses),
            ports["apiPort"], ports["raftPort"], ports["leasePort"],
        )  # fmt: skip

    def policy(self, members: tuple[Member, ...]) -> str:
        if "policy" not in self.raw:
            return ""
        policy = self.text(self.raw, "policy", "policy")
        if policy not in POLICIES:
            self.refuse("policy", f"{policy!r}: use one of {', '.join(POLICIES)}")
        if len(members) != 2 or not all(m.role == "Voter" for m in members):
            self.refuse("policy", "it is for two nodes that both vote, and nobody else: leave it out")
        return policy

    def arbiter(self) -> Path | None:
        needed = self.raw.get("policy") == ARBITER
        if "arbiter" not in self.raw:
            if needed:
                self.refuse(
                    "arbiter", "policy arbiter needs the disk that both nodes share: arbiter: /dev/disk/by-id/..."
                )
            return None
        if not needed:
            self.refuse("arbiter", "it is the disk of policy arbiter: leave it out")
        path = Path(self.text(self.raw, "arbiter", "arbiter"))
        if not path.is_absolute():
            self.refuse("arbiter", f"{str(path)!r}: write the whole path, as in /dev/disk/by-id/...")
        return path

    def config(self) -> NodeConfig:
        name = self.label(self.raw, "node", "node")
        cluster = self.label(self.raw, "cluster", "cluster")
        members = self.members()
        if name not in {m.name for m in members}:
            self.refuse("node", f"{name!r} is not among the members {', '.join(m.name for m in members)}")
        named = self.text(self.raw, "profile", "profile", "default")
        if named not in PROFILES:
            self.refuse("profile", f"{named!r}: use one of {', '.join(PROFILES)}")
        timing = self.timing(named)
        tls = self.raw.get("tls", {})
        if not isinstance(tls, dict):
            self.refuse("tls", "expected a mapping with ca, certificate, key")
        config = NodeConfig(
            path=self.path,
            cluster=cluster,
            cluster_id=self.text(self.raw, "clusterId", "clusterId"),
            name=name,
            members=members,
            profile=named,
            ca=self.file(tls, "ca", "tls.ca", "ca.crt"),
            certificate=self.file(tls, "certificate", "tls.certificate", "node.crt"),
            key=self.file(tls, "key", "tls.key", "node.key"),
            lease_secret=self.file(self.raw, "leaseSecret", "leaseSecret", "lease.secret"),
            node_secret=self.file(self.raw, "nodeSecret", "nodeSecret", "node.secret"),
            data_dir=self.file(self.raw, "dataDir", "dataDir", "data"),
            run_dir=Path(self.text(self.raw, "runDir", "runDir", f"/run/hasys/{cluster}-{name}")),
            policy=self.policy(members),
            arbiter=self.arbiter(),
            common_start=self.common_start(),
            common_stop=self.common_stop(),
            watchdog=self.watchdog(timing.ttl),
            log=self.log(),
            telemetry=self.telemetry(members, name),
            reboot=self.reboot(),
            timing=timing,
        )
        for field, file in (("tls.key", config.key), ("nodeSecret", config.node_secret)):
            self.private(field, file)
        if config.lease_secret.exists():  # voters
            self.private("leaseSecret", config.lease_secret)
        return config

    def timing(self, name: str) -> Timing:
        raw = self.raw.get("timing", {})
        known = {key: field for key, (field, _) in figures(PROFILES[name]).items()}
        if not isinstance(raw, dict) or not set(raw) <= set(known):
            self.refuse("timing", f"expected a mapping of {', '.join(known)} to durations")
        try:
            return profile(name, {known[key]: self.seconds(raw, "timing", key, "") for key in raw}, BY_NAME)
        except TimingRefused as e:
            raise ConfigRefused(f"{self.path}: {e}") from None

    def watchdog(self, ttl: float) -> Watchdog:
        """``off``, ``auto``, ``required``, or a mapping with ``mode``, ``device`` and ``timeout``."""
        raw = self.raw.get("watchdog", "off")
        raw = dict(raw) if isinstance(raw, dict) else {"mode": raw}
        for key in raw:
            if key not in ("mode", "device", "timeout"):
                self.refuse(f"watchdog.{key}", "unknown field; known are mode, device, timeout")
        if raw.get("mode") is False:  # an unquoted off is a boolean in YAML
            raw["mode"] = "off"
        if raw.get("mode") not in WATCHDOGS:
            self.refuse("watchdog.mode", f"{raw.get('mode')!r}: use one of {', '.join(WATCHDOGS)}")
        device = self.text(raw, "device", "watchdog.device", "/dev/watchdog")
        if not device.startswith("/dev/"):
            self.refuse("watchdog.device", f"{device!r} is no device: name it like /dev/watchdog0")
        timeout = self.seconds(raw, "watchdog", "timeout", "10s")
        if timeout != int(timeout) or not 2 * ttl <= timeout <= 600:
            least = f"{math.ceil(2 * ttl)}s (twice the lease of this profile)"
            self.refuse("watchdog.timeout", f"{timeout:g}s: use whole seconds, from {least} to 600s")
        return Watchdog(raw["mode"], Path(device), int(timeout))

    def log(self) -> Log:
        raw = self.program("log", ("format", "size", "keep")) or {}
        form = self.text(raw, "format", "log.format", "text")
        if form not in ("text", "json"):
            self.refuse("log.format", f"{form!r}: use text or json")
        size = self.text(raw, "size", "log.size", "1MiB")
        match = _SIZE.fullmatch(size)
        bytes_ = int(match[1]) << {"KiB": 10, "MiB": 20}[match[2]] if match else 0
        if not 64 << 10 <= bytes_ <= 100 << 20:
            self.refuse("log.size", f"{size!r}: write it like 512KiB or 10MiB, from 64KiB to 100MiB")
        keep = raw.get("keep", 1)
        if not isinstance(keep, int) or isinstance(keep, bool) or not 1 <= keep <= 99:
            self.refuse("log.keep", f"{keep!r}: a number of files from 1 to 99")
        return Log(form, bytes_, keep)

    def telemetry(self, members: tuple[Member, ...], name: str) -> Telemetry | None:
        raw = self.program("telemetry", ("prometheus", "otlp"))
        if raw is None:
            return None
        own = next(m.addresses[0] for m in members if m.name == name)
        return telemetry.read(
            raw, self.refuse, lambda otlp: self.seconds(dict(otlp), "telemetry.otlp", "interval", "15s"), own
        )

    def common_start(self) -> CommonStart | None:
        raw = self.program("commonStart", ("command", "timeout", "wait", "onFailure"))
        if raw is None:
            return None
        on_failure = self.text(raw, "onFailure", "commonStart.onFailure", "Stop")
        if on_failure not in ("Stop", "Continue"):
            self.refuse("commonStart.onFailure", f"{on_failure!r}: use Stop or Continue")
        return CommonStart(
            self.command(raw, "commonStart"),
            self.seconds(raw, "commonStart", "timeout", "5m"),
            self.seconds(raw, "commonStart", "wait", "0s"),
            on_failure == "Continue",
        )

    def common_stop(self) -> CommonStop | None:
        raw = self.program("commonStop", ("command", "timeout"))
        if raw is None:
            return None
        return CommonStop(self.command(raw, "commonStop"), self.seconds(raw, "commonStop", "timeout", "5m"))

    def reboot(self) -> RebootCommand | None:
        raw = self.program("reboot", ("command", "timeout"))
        if raw is None:
            return None
        return RebootCommand(self.command(raw, "reboot"), self.seconds(raw, "reboot", "timeout", "60s"))

    def program(self, field: str, known: tuple[str, ...]) -> dict[str, Any] | None:
        raw = self.raw.get(field)
        if raw is None:
            return None
        if not isinstance(raw, dict):
            self.refuse(field, f"expected a mapping with {', '.join(known)}")
        for key in raw:
            if key not in known:
                self.refuse(f"{field}.{key}", f"unknown field; known are {', '.join(known)}")
        return dict(raw)

    def command(self, raw: dict[str, Any], field: str) -> tuple[str, ...]:
        value = raw.get("command")
        if not isinstance(value, list) or not value or not all(isinstance(word, str) and word for word in value):
            self.refuse(f"{field}.command", "expected a list of words: the program and its arguments")
        return tuple(str(word) for word in value or ())

    def seconds(self, raw: dict[str, Any], field: str, key: str, default: str) -> float:
        value = self.text(raw, key, f"{field}.{key}", default)
        match = _DURATION.fullmatch(value)
        if match is None:
            self.refuse(f"{field}.{key}", f"{value!r} is no duration: write it like 500ms, 1.5s, 2m or 1h")
            return 0.0
        found = float(match[1]) / 1000 if match[2] == "ms" else float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]
        if found > 86_400:
            self.refuse(f"{field}.{key}", f"{value} is too long: at most 24h")
        return found

    def private(self, field: str, file: Path) -> None:
        """A secret that others may read is refused, like ssh does."""
        try:
            refuse_exposed(file)
        except OSError as e:
            self.refuse(field, f"{file}: {e.strerror}")
        except ConfigRefused as e:
            self.refuse(field, str(e))
