"""Where the servers are and who we are: client.yaml, or a node's own settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from hasys.config import Member, NodeConfig, read_yaml
from hasys.files import refuse_exposed
from hasys.model.errors import ConfigRefused

TIMEOUT = 5.0
"""Seconds for one call, all attempts together, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where the servers are and who we are."""

    cluster: str
    servers: tuple[str, ...]
    """``IP:PORT``, ``[IPv6]:PORT``; the first is tried first."""
    ca: Path
    certificate: Path
    key: Path
    follow_leader: bool = True
    """Go to the leader once a server tells where it is. Agents stay with their own node's server: it notices a lost
    leader first."""
    patience: float | None = TIMEOUT
    """Seconds that a watch waits for its first answer; None: for ever, and calls seek a server until their timeout."""


def load_context(path: Path | str) -> Context:
    """Read a client.yaml. Raises ``ConfigRefused`` with file, field and mend in one line."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "client.yaml"
    try:
        raw = read_yaml(path.read_text("utf-8"))
    except OSError as e:
        raise ConfigRefused(f"{path}: {e.strerror}: give the client.yaml that 'hasys init' wrote") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigRefused(f"{path}: not YAML: give the client.yaml that 'hasys init' wrote") from None
    servers = raw.get("servers") if isinstance(raw, dict) else None
    tls = raw.get("tls", {}) if isinstance(raw, dict) else None
    if not isinstance(servers, list) or not servers or not all(isinstance(one, str) for one in servers):
        raise ConfigRefused(f"{path}: servers: expected a list of IP:PORT")
    if not isinstance(tls, dict):
        raise ConfigRefused(f"{path}: tls: expected a mapping with ca, certificate, key")
    base = path.resolve().parent
    files = {}
    for name, default in (("ca", "ca.crt"), ("certificate", "client.crt"), ("key", "client.key")):
        value = tls.get(name, default)
        if not isinstance(value, str) or not value:
            raise ConfigRefused(f"{path}: tls.{name}: expected the name of a file")
        files[name] = base / value
    with contextlib.suppress(OSError):  # a missing one is named where it is read
        refuse_exposed(files["key"])
    return Context(
        cluster=str(raw.get("cluster", "")),
        servers=tuple(servers),
        ca=files["ca"],
        certificate=files["certificate"],
        key=files["key"],
    )


def from_node_config(config: NodeConfig) -> Context:
    """The context of a node's own processes: its own server first, then every other that votes."""
    servers = targets_of(sorted(config.voters, key=lambda member: member.name != config.name))
    return Context(
        config.cluster, servers, config.ca, config.certificate, config.key, follow_leader=False, patience=None
    )


def targets_of(members: Iterable[Member]) -> tuple[str, ...]:
    """Where the API of these members is."""
    return tuple(
        f"[{address}]:{member.api_port}" if ":" in address else f"{address}:{member.api_port}"
        for member in members
        for address in member.addresses
    )
