"""``hasys cert``: look at certificates, renew them, issue one for another person."""

from __future__ import annotations

import datetime
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml
from cryptography import x509

from hasys.cli.context import context_option, context_path
from hasys.cli.files import replace_together
from hasys.cli.init import write_client_folder
from hasys.cli.output import output_option, print_json, print_table
from hasys.cli.pki import Authority, common_name, organization, read_certificate, unit
from hasys.config import LABEL, read_yaml
from hasys.model.errors import ConfigRefused, Refused

_SOON = datetime.timedelta(days=60)
_CA = click.option(
    "--ca", "ca", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The folder 'ca' that init wrote."
)


@click.group()
def cert() -> None:
    """Show, renew and issue certificates."""


@cert.command(short_help="Whose they are and when they end.")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path), metavar="[FOLDER|FILE]...")
@output_option("table", "json")
@context_option
def show(paths: Sequence[Path], output: str) -> None:
    """Whose they are and when they end; with no argument, those of the current context.

    Fails when one is expired, so it can stand in a nightly check.
    """
    files = [file for path in paths or [context_path().parent] for file in _certificates(path)]
    rows = [_facts(file) for file in files]
    if output == "json":
        print_json(rows)
    else:
        columns = ("FILE", "ROLE", "NAME", "CLUSTER", "NOT AFTER", "DAYS LEFT", "STATE")
        keys = ("file", "role", "name", "clusterId", "notAfter", "daysLeft", "state")
        print_table(columns, [[str(row[key]) for key in keys] for row in rows])
    expired = [row["file"] for row in rows if row["state"] == "expired"]
    if expired:
        raise Refused(f"expired: {', '.join(expired)}: hasys cert renew FOLDER --ca DIR")


@cert.command(short_help="A new key and two more years.")
@click.argument("folder", type=click.Path(path_type=Path))
@_CA
def renew(folder: Path, ca: Path) -> None:
    """Issue the certificate in FOLDER (of a node or a client) anew, with a new key, for two more years.

    Running processes show it on their next connections: nothing needs to be restarted.
    """
    authority = Authority.load(ca)
    kind = "node" if (folder / "node.crt").exists() else "client"
    old = read_certificate(folder / f"{kind}.crt")
    if organization(old) != authority.organization:
        raise Refused(f"{folder / f'{kind}.crt'} is of another cluster than {ca}")
    name = common_name(old)
    new = authority.issue_node(name, _addresses(old)) if unit(old) == "node" else authority.issue_admin(name)
    replace_together({
        folder / f"{kind}.key": (new.key_pem, 0o600),
        folder / f"{kind}.crt": (new.certificate_pem, 0o644),
        folder / "ca.crt": (authority.issued.certificate_pem, 0o644),
    })  # fmt: skip
    click.echo(f"{folder / f'{kind}.crt'} renewed until {_day(new.certificate.not_valid_after_utc)}")


@cert.command(short_help="A certificate for another administrator.")
@click.argument("name")
@_CA
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FOLDER", help="A new folder.")
@context_option
def issue(name: str, ca: Path, out: Path) -> None:
    """Issue an administrator's certificate for NAME, with client settings like those of the current context."""
    if not LABEL.match(name):
        raise ConfigRefused(f"{name!r} is no DNS label: use a-z, 0-9 and '-', at most 63 characters")
    settings_file = _settings_beside(ca)
    try:
        settings = read_yaml(settings_file.read_text("utf-8"))
        cluster, servers = str(settings["cluster"]), [str(server) for server in settings["servers"]]
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
        raise ConfigRefused(f"{settings_file}: not client settings: cluster and servers are needed") from None
    authority = Authority.load(ca)
    if out.exists():
        raise ConfigRefused(f"{out} exists: nothing is overwritten, choose another folder")
    write_client_folder(out, authority, authority.issue_admin(name), cluster, servers)
    click.echo(f"{out}/client.yaml written for {name}: export HASYS_CONTEXT={(out / 'client.yaml').resolve()}")


def remaining(certificate: x509.Certificate) -> datetime.timedelta:
    """How long a certificate is still valid; negative once it is not."""
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)


def _settings_beside(ca: Path) -> Path:
    """Client settings to copy: the ones that init wrote beside the authority, else the current context's."""
    beside = ca.resolve().parent / "client" / "client.yaml"
    return beside if beside.exists() else context_path()


def _certificates(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.glob("*.crt"))
    if not found:
        raise ConfigRefused(f"{path}: no certificate (*.crt) in this folder")
    return found


def _facts(file: Path) -> dict[str, Any]:
    certificate = read_certificate(file)
    left = remaining(certificate)
    state = "expired" if left.total_seconds() < 0 else "ends soon" if left < _SOON else "valid"
    return {
        "file": str(file),
        "role": unit(certificate) or "authority",
        "name": common_name(certificate),
        "clusterId": organization(certificate).removeprefix("hasys:"),
        "notAfter": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "daysLeft": round(left / datetime.timedelta(days=1)),
        "addresses": _addresses(certificate),
        "keyReadableByOthers": _exposed(file.with_suffix(".key")),
        "state": state,
    }


def _exposed(key: Path) -> bool:
    return key.exists() and bool(key.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _addresses(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def _day(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%d")
