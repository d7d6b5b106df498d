"""``hasys install``: systemd units of a node or witness. A dry run prints them; ``--apply`` writes them."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from hasys.cli.files import replace_together
from hasys.cli.run import command_of, roles_of
from hasys.config import NodeConfig, load
from hasys.model.errors import Refused

_UNIT_DIR = Path("/etc/systemd/system")

_PURPOSE = {
    "store": "store: consensus, API, controllers",
    "guard": "guard: keeps the lease, fences when it is lost",
    "agent": "agent: runs the resources",
}


@click.command()
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), metavar="FILE", help="node.yaml.")
@click.option("--apply", "write", is_flag=True, help="Write the units instead of printing them (root).")
@click.option("--unit-dir", type=click.Path(path_type=Path), default=_UNIT_DIR, show_default=True, metavar="DIR")
def install(path: Path, write: bool, unit_dir: Path) -> None:
    """systemd units for the node of FILE. Without --apply nothing is changed: they are printed."""
    config = load(path)
    made = units(config)
    if not write:
        for name, text in made.items():
            click.echo(f"# {unit_dir / name}\n{text}")
        click.echo("# dry run: nothing was written; add --apply", err=True)
        return
    if not os.access(unit_dir, os.W_OK):
        raise Refused(f"{unit_dir}: cannot be written: run it as root")
    replace_together({unit_dir / name: (text.encode(), 0o644) for name, text in made.items()})
    for name in made:
        click.echo(f"{unit_dir / name} written")
    click.echo(f"now: systemctl daemon-reload && systemctl enable --now {node_unit(config)}")


def node_unit(config: NodeConfig) -> str:
    """The unit that stands for the whole node: start it, stop it."""
    return f"hasys-{config.instance}.service"


def units(config: NodeConfig) -> dict[str, str]:
    """File name and content of every unit of this member."""
    made = {_role_unit(config, role): _process_unit(config, role) for role in roles_of(config)}
    made[node_unit(config)] = _whole_unit(config)
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
ExecStart={_quoted(command_of(config, role, "run"))}
Restart=always
RestartSec=200ms
KillMode=process
TimeoutStopSec=10s
{_LIMITS[role]}
[Install]
WantedBy={node_unit(config)}
"""


_LIMITS = {
    "store": "OOMScoreAdjust=-500\nLimitNOFILE=65536\n",
    "guard": "OOMScoreAdjust=-1000\nLimitMEMLOCK=infinity\nLimitRTPRIO=99\n",
    "agent": "OOMScoreAdjust=-500\nDelegate=yes\n",
}
"""The guard is the last one to go when memory is short; only the agent's process is stopped, never what it runs."""


def _whole_unit(config: NodeConfig) -> str:
    wants = " ".join(_role_unit(config, role) for role in roles_of(config))
    stop = command_of(config, "node", "hand-over")
    hand_over = f"ExecStop={_quoted(stop)}\nTimeoutStopSec=1h\n" if config.me.runs_groups else ""
    what = "node: stopping it hands its groups over first" if config.me.runs_groups else "witness"
    return f"""\
[Unit]
Description=hasys {what} ({config.name} of {config.cluster})
Wants={wants}
After={wants} network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
{hand_over}
[Install]
WantedBy=multi-user.target
"""


def _quoted(command: list[str]) -> str:
    return shlex.join(command).replace("%", "%%")
