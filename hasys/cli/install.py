"""``hasys install``: systemd units of a node or witness. A dry run prints them, ``--apply`` writes them, ``--start``
ends in a running service."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from hasys.cli import systemd
from hasys.cli.context import context_option, context_path
from hasys.cli.files import replace_together
from hasys.cli.run import command_of, roles_of
from hasys.config import NodeConfig, load
from hasys.model.errors import Refused

UNIT_DIR = Path("/etc/systemd/system")

HAND_OVER_LIMIT = 3700.0
"""Seconds that a stopping node waits for its groups to go: the longest stop time, and what comes with it."""
_COMMAND_FILES = "command-files"
_PURPOSE = {
    "store": "store: consensus, API, controllers",
    "guard": "guard: keeps the lease, fences when it is lost",
    "agent": "agent: runs the resources",
    "telemetry": "telemetry: metrics and traces for others",
}


@click.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), metavar="FILE", help="node.yaml.")
@click.option("--apply", "write", is_flag=True, help="Write the units instead of printing them (root).")
@click.option("--start", is_flag=True, help="Write them, enable them, start the node, wait until it serves (root).")
@click.option("--command-files", "directory", type=click.Path(path_type=Path), metavar="DIR",
              help="A unit too that carries out the command files in DIR; needs --context.")  # fmt: skip
@click.option("--unit-dir", type=click.Path(path_type=Path), default=UNIT_DIR, show_default=True, metavar="DIR")
@context_option
def install(path: Path, write: bool, start: bool, directory: Path | None, unit_dir: Path) -> None:
    """systemd units for the node of FILE. Without --apply or --start nothing is changed: they are printed."""
    if write or start:
        install_service(path, start=start, directory=directory, unit_dir=unit_dir)
        return
    config = load(path)
    for name, text in units(config, _command_files(config, directory) if directory else "").items():
        click.echo(f"# {unit_dir / name}\n{text}")
    click.echo("# dry run: nothing was written; add --apply, or --start", err=True)


def install_service(path: Path, *, start: bool, directory: Path | None = None, unit_dir: Path = UNIT_DIR) -> None:
    """Write the units of the node of node.yaml; with ``start`` it runs when this returns. ``directory``: of command
    files. Raises ``Refused`` with the mend."""
    config = load(path)
    made = units(config, _command_files(config, directory) if directory else "")
    if start and not systemd.runs():
        raise Refused("systemd does not run on this machine: start the node in the foreground, 'hasys node run'")
    if not os.access(unit_dir, os.W_OK):
        raise Refused(f"{unit_dir}: cannot be written: run 'hasys install --config {path} --start' as root")
    if directory:
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
    replace_together({unit_dir / name: (text.encode(), 0o644) for name, text in made.items()})
    for name in made:
        click.echo(f"{unit_dir / name} written")
    if start:
        systemd.enable_and_start(node_unit(config))
        click.echo(f"{node_unit(config)} runs; its log: journalctl -u 'hasys-{config.instance}*'")
    else:
        click.echo(f"now: systemctl daemon-reload && systemctl enable --now {node_unit(config)}")


def node_unit(config: NodeConfig) -> str:
    """The unit that stands for the whole node: start it, stop it."""
    return f"hasys-{config.instance}.service"


def units(config: NodeConfig, command_files: str = "") -> dict[str, str]:
    """File name and content of every unit of this member; ``command_files``: the content of one more."""
    roles = roles_of(config)
    made = {_role_unit(config, role): _process_unit(config, role) for role in roles}
    if command_files:
        made[_role_unit(config, _COMMAND_FILES)] = command_files
    made[node_unit(config)] = _whole_unit(config, [*roles, *([_COMMAND_FILES] if command_files else [])])
    return made


def _role_unit(config: NodeConfig, role: str) -> str:
    return f"hasys-{config.instance}-{role}.service"


def _process_unit(config: NodeConfig, role: str) -> str:
    before_network = "Before=network-pre.target\nWants=network-pre.target\n" if role == "guard" else ""
    after = {"store": "network.target", "guard": "local-fs.target nftables.service"}.get(role, "network.target")
    if role == "agent":
        after += f" {_role_unit(config, 'guard')}"
    return f"""\
[Unit]
Description=hasys {_PURPOSE[role]} ({config.name} of {config.cluster})
After={after}
{before_network}PartOf={node_unit(config)}
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={_quoted(command_of(config, role, "run"))}
Restart=always
{_RETURN.get(role, "RestartSec=200ms")}
WatchdogSec={_silence(config, role):g}s
WatchdogSignal=SIGKILL
KillMode=process
TimeoutStartSec=infinity
TimeoutStopSec=10s
{_LIMITS[role]}
[Install]
WantedBy={node_unit(config)}
"""


_LIMITS = {
    "store": "OOMScoreAdjust=-500\nLimitNOFILE=65536\nLimitMEMLOCK=infinity\nCPUWeight=1000\n",
    "guard": "OOMScoreAdjust=-1000\nLimitMEMLOCK=infinity\nLimitRTPRIO=99\n",
    "agent": "OOMScoreAdjust=-500\nDelegate=yes\n",
    "telemetry": "OOMScoreAdjust=500\nMemoryMax=300M\nNice=10\n",
}
"""The guard is the last one to go when memory is short; only the agent's process is stopped, never what it runs."""

_RETURN = {
    "guard": "RestartSec=0\nExecStopPost=/bin/sh -c 'case $$EXIT_STATUS in 0|KILL) ;; *) sleep 0.2 ;; esac'",
}
"""How a role is started again where not after a short pause. systemd lets any such pause last up to 250 ms longer (the
accuracy of its timers, sd_event_add_time(3)); with that a guard that was killed would be back too late for its lease of
the profile ``fast``. It pauses only after it has ended with an error, which would come again."""


def _silence(config: NodeConfig, role: str) -> float:
    """Seconds without a sign of life after which systemd kills a process that hangs, and starts it again.

    The agent must be back before the guard loses patience with it. When the guard hangs, the kernel has muted the
    addresses long before; a new one fences what is left. A store may wait for a slow disk.
    """
    return {"agent": config.seed_timing().agent_grace / 2, "guard": 10.0, "store": 30.0, "telemetry": 30.0}[role]


def _command_files(config: NodeConfig, directory: Path) -> str:
    if not config.me.runs_groups:
        raise Refused(f"--command-files: {config.name} is a witness, there is nothing to move on it")
    context = context_path().resolve()
    if not context.is_file():
        raise Refused(f"--command-files: {context}: no client settings there: name them with --context FILE")
    command = [sys.executable, "-P", "-m", "hasys", "--context", str(context), "command-files"]
    return f"""\
[Unit]
Description=hasys command files in {directory} ({config.name} of {config.cluster})
After={_role_unit(config, "agent")}
PartOf={node_unit(config)}
StartLimitIntervalSec=0

[Service]
ExecStart={_quoted([*command, "--directory", str(directory.resolve()), "--node", config.name])}
Restart=always
RestartSec=5s

[Install]
WantedBy={node_unit(config)}
"""


def _whole_unit(config: NodeConfig, parts: Sequence[str]) -> str:
    wants = " ".join(_role_unit(config, part) for part in parts)
    stop = command_of(config, "node", "hand-over")
    last = config.common_stop.timeout if config.common_stop else 0.0
    hand_over = f"ExecStop={_quoted(stop)}\nTimeoutStopSec={HAND_OVER_LIMIT + last:g}s\n"
    what = "node: stopping it hands its groups over first" if config.me.runs_groups else "witness"
    return f"""\
[Unit]
Description=hasys {what} ({config.name} of {config.cluster})
Wants={wants} network-online.target
After={wants} network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
{hand_over if config.me.runs_groups else ""}
[Install]
WantedBy=multi-user.target
"""


def _quoted(command: list[str]) -> str:
    return shlex.join(command).replace("%", "%%")
