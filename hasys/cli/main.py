"""``hasys``: the table of commands. Which module a command lives in, and nothing else."""

from __future__ import annotations

import io
import os
import sys

import click

from hasys.cli.context import remember_context
from hasys.cli.lazy import Lazy, LazyGroup

_SET_UP, _USE, _ACT, _RUN, _MORE = (
    "Set up",
    "Describe and see",
    "Act",
    "Run (on the servers)",
    "More",
)

COMMANDS = {
    "init": Lazy("hasys.cli.init", "init", "Create a cluster: keys, certificates and one folder per node.", _SET_UP),
    "install": Lazy("hasys.cli.install", "install", "systemd units for a node (dry run prints them).", _SET_UP),
    "doctor": Lazy("hasys.cli.doctor", "doctor", "Check this machine, say how to mend what is found.", _SET_UP),
    "cert": Lazy("hasys.cli.cert", "cert", "Show, renew and issue certificates.", _SET_UP),
    "demo": Lazy("hasys.cli.misc", "demo", "A whole cluster on this machine, with a failover to watch.", _SET_UP),
    "import": Lazy("hasys.cli.imports", "import_", "Manifests from keepalived or HA_SYS settings.", _SET_UP),
    "apply": Lazy("hasys.cli.apply", "apply", "Create or change objects from manifests.", _USE),
    "get": Lazy("hasys.cli.get", "get", "List objects, or print one.", _USE),
    "describe": Lazy("hasys.cli.get", "describe", "One object, its state and its latest events.", _USE),
    "delete": Lazy("hasys.cli.apply", "delete", "Delete objects.", _USE),
    "status": Lazy("hasys.cli.status", "status", "The cluster, its nodes and groups now (-w: live).", _USE),
    "top": Lazy("hasys.cli.top.command", "top", "The same on a whole screen, with actions.", _USE),
    "events": Lazy("hasys.cli.events", "events", "What happened and why.", _USE),
    "history": Lazy("hasys.cli.events", "history", "Who asked for what, and how it ended.", _USE),
    "switchover": Lazy("hasys.cli.operate", "switchover", "Move a group in order; waits for the result.", _ACT),
    "failover": Lazy("hasys.cli.operate", "failover", "Move a group by force: conditions are skipped.", _ACT),
    "resolve": Lazy("hasys.cli.operate", "resolve", "Say which node is Active after a partition.", _ACT),
    "fence-confirm": Lazy("hasys.cli.operate", "fence_confirm", "Swear that a node is off.", _ACT),
    "pause": Lazy("hasys.cli.operate", "pause", "Switch a group's automatic failover off.", _ACT),
    "resume": Lazy("hasys.cli.operate", "resume", "Switch it on again.", _ACT),
    "retry": Lazy("hasys.cli.operate", "retry", "Run again only what failed.", _ACT),
    "drain": Lazy("hasys.cli.operate", "drain", "Move everything away from a node.", _ACT),
    "undrain": Lazy("hasys.cli.operate", "undrain", "Let a node be used again.", _ACT),
    "run": Lazy("hasys.cli.command", "run_command", "Run a command on a node; kept in the history.", _ACT),
    "member": Lazy("hasys.cli.member", "member", "Members of the cluster: list, add, remove, replace.", _ACT),
    "backup": Lazy("hasys.cli.backup", "backup", "Write the whole store to a file.", _ACT),
    "restore": Lazy("hasys.cli.backup", "restore", "Begin the store anew from a backup.", _ACT),
    "command-files": Lazy("hasys.cli.commandfiles", "command_files", "Commands as files in a directory.", _RUN),
    "node": Lazy("hasys.cli.run", "node", "The whole node in the foreground.", _RUN),
    "witness": Lazy("hasys.cli.run", "witness", "The witness in the foreground.", _RUN),
    "store": Lazy("hasys.cli.run", "store", "The store process alone, for systemd.", _RUN),
    "agent": Lazy("hasys.cli.run", "agent", "The agent process alone, for systemd.", _RUN),
    "guard": Lazy("hasys.cli.run", "guard", "The guard process alone, for systemd.", _RUN),
    "telemetry": Lazy("hasys.cli.run", "telemetry", "The process that exports metrics and traces.", _RUN),
    "completion": Lazy("hasys.cli.misc", "completion", "Completion script for bash, zsh or fish.", _MORE),
    "version": Lazy("hasys.cli.misc", "version", "The version of this program.", _MORE),
}
"""Every command, in the order of ``hasys --help``."""


@click.command(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--context", metavar="FILE", expose_value=False, callback=remember_context, is_eager=True,
    help="Client settings; else $HASYS_CONTEXT, else ~/.config/hasys/client.yaml.",
)  # fmt: skip
def app() -> None:
    """Keeps a service running when its server dies.

    Exit status: 0 done, 1 refused or failed (one line says why), 2 wrong usage, 3 no server reached, 4 timed out.
    """


def main() -> None:
    """Entry point of the ``hasys`` command."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core prints what we say ourselves, in one line
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character is no reason to fail
    app(prog_name="hasys")
