"""``hasys import``: manifests from the settings of other products."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from hasys.api.formats import label as label_fault
from hasys.api.manifest import load
from hasys.cli.importing import hasys_v5, keepalived
from hasys.cli.importing.result import Imported, one_line
from hasys.cli.sources import read_all
from hasys.model.errors import Refused

LONGEST = 256 * 1024
"""Bytes of a settings file; the longest real ones have a tenth of it."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _node(context: click.Context, parameter: click.Parameter, given: Sequence[str]) -> Sequence[str]:
    for one in given:
        name, equals, priority = one.partition("=")
        wrong = label_fault(name)
        if wrong:
            raise click.BadParameter(wrong)
        if equals and not (priority.isdecimal() and len(priority) < 5 and int(priority) <= 1000):
            raise click.BadParameter(f"{one}: the priority is a number from 0 to 1000")
    return given


def _common(command: _Command) -> _Command:
    node = click.option(
        "--node", "nodes", multiple=True, required=True, callback=_node, metavar="NAME[=PRIORITY]",
        help="A node of the cluster that may run the groups, the preferred one first. Repeat it.",
    )  # fmt: skip
    return click.argument("file", metavar="FILE|-")(node(command))


@click.group("import")
def import_() -> None:
    """Manifests from the settings of another product.

    They are printed, nothing is applied. What could not be translated is a comment on top, and on stderr. Then:
    hasys apply --dry-run -f FILE.
    """


@import_.command("keepalived")
@_common
def keepalived_(file: str, nodes: Sequence[str]) -> None:
    """FILE is a keepalived.conf, of the first node named: its vrrp instances become groups with their addresses."""
    name, text = _read(file)
    _print(keepalived.translate(text, nodes), name)


@import_.command("hasys-v5")
@_common
@click.option("--group", default="ha-group", show_default=True, metavar="NAME", help="Name of the group.")
@click.option("--cluster", default="", metavar="NAME", help="Name of the cluster, to set its profile.")
@click.option("--device", default="", metavar="PATH", help="The shared disk, with --mount-point.")
@click.option("--mount-point", default="", metavar="PATH", help="Where it is mounted.")
def hasys_v5_(
    file: str, nodes: Sequence[str], group: str, cluster: str, device: str, mount_point: str
) -> None:  # fmt: skip
    """FILE is HA_SYS's hasys_variable_opt.sh. It is read, never executed."""
    name, text = _read(file)
    wanted = hasys_v5.Wanted(group, nodes, cluster, device, mount_point)
    _print(hasys_v5.translate(text, wanted), name)


def _read(file: str) -> tuple[str, str]:
    """Name and text. Raises ``Refused``."""
    found = read_all([file])
    name, text = found[0]
    if len(found) > 1 or len(text) > LONGEST:
        raise Refused(f"{file}: expected one settings file of at most {LONGEST >> 10} KiB")
    return name, text


def _print(made: Imported, source: str) -> None:
    """Raises ``Refused`` when what was made is no manifest: a fault of ours or of a name given on the command line."""
    manifest = made.manifest(source)
    if made.objects:
        load([("what was made", manifest)])
    for line in made.left:
        click.echo(f"not translated: {one_line(line)}", err=True)
    for line in made.notes:
        click.echo(f"different from now on: {one_line(line)}", err=True)
    click.echo(manifest, nl=False)
