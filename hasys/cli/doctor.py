"""``hasys doctor``: checks this machine and a node's settings; each finding says how to mend it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import click
from rich.text import Text

from hasys.cli import machine
from hasys.cli.machine import BAD, GOOD, WARN, Finding
from hasys.cli.output import output_option, print_json, print_table
from hasys.config import NodeConfig, load
from hasys.guard.arbiter import seat_of
from hasys.lease.arbiter import LIFE
from hasys.model.errors import ConfigRefused, Refused

_MARKS = {GOOD: ("ok", "green"), WARN: ("look", "yellow"), BAD: ("BAD", "bold red")}


@click.command()
@click.option("--config", "path", type=click.Path(path_type=Path), metavar="FILE", help="node.yaml: checks it as well.")
@output_option("table", "json")
def doctor(path: Path | None, output: str) -> None:
    """Check this machine (and the node of FILE), say how to mend what is found. Changes nothing.

    Fails when something would keep hasys from working; "look" is advice.
    """
    findings = list(examine(path))
    if output == "json":
        print_json([{"check": f.check, "state": f.state, "found": f.found, "mend": f.mend} for f in findings])
    else:
        rows: list[list[str | Text]] = [[Text(*_MARKS[f.state]), f.check, f.found] for f in findings]
        print_table(("", "CHECK", "FOUND"), rows)
        for finding in findings:
            if finding.mend:
                click.echo(f"{_MARKS[finding.state][0]}: {finding.check}: {finding.mend}")
    bad = [f.check for f in findings if f.state == BAD]
    if bad:
        raise Refused(f"{len(bad)} of {len(findings)} checks failed: {', '.join(bad)}")


def examine(path: Path | None) -> Iterable[Finding]:
    """Every finding, those about the machine first."""
    yield machine.root()
    yield machine.python()
    yield machine.kernel()
    yield machine.nftables()
    yield machine.cgroups()
    yield machine.clock()
    yield from machine.network_managers()
    if path is None:
        yield Finding(WARN, "node settings", "not given", "add --config node.yaml to check a node's settings too")
        return
    try:
        config = load(path)
    except ConfigRefused as fault:
        yield Finding(
            BAD, "node settings", str(fault), "mend the file, or copy the folder that 'hasys init' wrote again"
        )
        return
    yield Finding(GOOD, "node settings", f"{config.name} of {config.cluster}, {len(config.members)} members")
    yield from _node(config)


def _node(config: NodeConfig) -> Iterable[Finding]:
    yield machine.certificate("node certificate", config.certificate)
    yield machine.certificate("authority", config.ca)
    yield machine.addresses(config)
    yield machine.ports(config)
    if config.me.runs_groups:
        yield machine.watchdog(config.watchdog)
    if (seat := seat_of(config)) is not None:
        yield machine.arbiter(seat, LIFE * config.seed_timing().ttl)
    if config.me.votes:
        yield machine.disk(_existing(config.data_dir), config.seed_timing().fsync)
        yield _space(_existing(config.data_dir))


def _space(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / 2**20
    state = GOOD if free > 1024 else WARN if free > 100 else BAD
    return Finding(state, "disk space", f"{free:.0f} MiB free at {folder}", "" if state == GOOD else "make room: 1 GiB")


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there already."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder if os.access(folder, os.W_OK) else Path("/tmp")  # noqa: S108  measured elsewhere rather than not at all
