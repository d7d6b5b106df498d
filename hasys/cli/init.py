"""``hasys init``: certificate authority, keys, and one folder per member, written completely or not at all."""

from __future__ import annotations

import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import yaml

from hasys.cli.files import write_public, write_secret
from hasys.cli.pki import Authority, Issued
from hasys.cli.seed import Seed, parse_member, plan, servers
from hasys.config import ALONE_ALLOWED, ARBITER, POLICIES, SAFE, Member
from hasys.lease.wire import derive_key
from hasys.model.errors import ConfigRefused
from hasys.model.timing import PROFILES, figures, show

_SECRET_BYTES = 32

_CA_NOTE = """\
This folder is the certificate authority of the cluster {cluster!r}.

Whoever has ca.key can issue certificates that the cluster trusts. No node needs it: keep this folder off the servers,
in a safe place. It is needed to renew certificates (they last two years), to issue new ones and to add members
(lease.secret is what voters share):

    hasys cert renew NODE_FOLDER --ca THIS_FOLDER
    hasys cert issue NAME --ca THIS_FOLDER --out FOLDER
    hasys member add NAME --address ADDR --ca THIS_FOLDER --out FOLDER
"""


_MEANS = {
    SAFE: "a lost node is not taken over by itself",
    ARBITER: "a lock on a shared disk decides who goes on; hasys doctor checks the disk on each node",
    ALONE_ALLOWED: "a lost node is taken over, and BOTH serve while only the link between them is cut",
}
"""In one line, what an operator must know of each policy."""


@click.command()
@click.option("--cluster", metavar="NAME", help="Name of the cluster, a DNS label.")
@click.option("--node", "nodes", multiple=True, metavar="NAME=ADDR[:PORT][,ADDR2]",
              help="A server. The second address is on the second network (heartbeat).")  # fmt: skip
@click.option("--witness", "witnesses", multiple=True, metavar="NAME=ADDR[:PORT][,ADDR2]",
              help="A small machine that votes and runs nothing.")  # fmt: skip
@click.option("--observer", "observers", multiple=True, metavar="NAME=ADDR[:PORT][,ADDR2]",
              help="A server that runs groups and does not vote.")  # fmt: skip
@click.option("--profile", type=click.Choice(list(PROFILES)), show_default="default",
              help="Timings: default (failover about 1.1 s), fast (about 0.6 s, quiet networks), wan.")  # fmt: skip
@click.option("--policy", metavar="NAME", default="",
              shell_complete=lambda _context, _parameter, text: [p for p in POLICIES if p.startswith(text)],
              help="Two nodes without a witness: what happens when one does not hear the other. safe (the default"
                   " there): the Active goes on, nothing is taken over before an operator says so. arbiter: a lock on"
                   " a shared disk decides. alone-allowed: the other takes over, and both serve when only the link"
                   " between them is cut.")  # fmt: skip
@click.option("--arbiter", metavar="PATH", default="",
              help="With --policy arbiter: the disk that both nodes write to, named as both see it: 128 KiB, zeros"
                   " at first.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder to write to.")
def init(
    cluster: str | None,
    nodes: Sequence[str],
    witnesses: Sequence[str],
    observers: Sequence[str],
    profile: str | None,
    policy: str,
    arbiter: str,
    out: Path | None,
) -> None:
    """Create a cluster: writes DIR/NODE/ for every node and the witness, DIR/client/ and DIR/ca/.

    On a terminal it asks for what is needed and not given, step by step, and offers to go on to 'hasys install'.

    \b
    hasys init --cluster demo --node n1=10.0.0.1 --node n2=10.0.0.2 --witness w=10.0.0.3 --out demo
    """
    members = [parse_member(n, "Voter") for n in nodes]
    members += [parse_member(w, "Witness") for w in witnesses]
    members += [parse_member(o, "Observer") for o in observers]
    if cluster and out is not None and (nodes or observers):
        seed = plan(cluster, members, profile or "default", policy, arbiter)
        write_cluster(seed, out)
        _say_what_next(seed, out)
        return
    if not _on_terminal():
        raise click.UsageError("--cluster, --node and --out are needed (on a terminal, init asks for them)")
    from hasys.cli.ask import Wanted, ask_for_cluster

    seed, out, first = ask_for_cluster(Wanted(cluster, tuple(members), profile, policy, arbiter, out), refuse_written)
    write_cluster(seed, out)
    _say_what_next(seed, out)
    if first:
        write_public(out / first.file, first.manifest(seed))
        click.echo(f"  then: hasys apply -f {out / first.file} --wait")
    _offer_service(seed, out)


def _offer_service(seed: Seed, out: Path) -> None:
    """When this machine is one of the members, and systemd runs it: the service, now."""
    from hasys.cli import systemd
    from hasys.cli.machine import is_here

    here = [m for m in seed.members if all(is_here(address) for address in m.addresses)]
    if len(here) != 1 or not systemd.runs():
        return
    from hasys.cli.install import install_service

    if click.confirm(f"This machine is {here[0].name}. Install its service and start it now", default=True):
        install_service(out / here[0].name, start=True)


def _on_terminal() -> bool:
    return sys.stdin.isatty()


def _folders(seed: Seed) -> list[str]:
    return ["ca", "client", *(m.name for m in seed.members)]


def refuse_written(seed: Seed, out: Path) -> None:
    """Raises :class:`ConfigRefused` when one of the cluster's folders is there."""
    for folder in _folders(seed):
        if (out / folder).exists():
            raise ConfigRefused(
                f"{out / folder} exists: nothing is overwritten, its keys may be in use; choose another --out"
            )


def write_cluster(seed: Seed, out: Path) -> None:
    """Write all folders of the cluster below ``out``, or none. Raises :class:`ConfigRefused` when one is there."""
    refuse_written(seed, out)
    folders = _folders(seed)
    out.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".init-", dir=out))
    try:
        authority = Authority.create(seed.cluster, seed.cluster_id)
        lease_secret = secrets.token_bytes(_SECRET_BYTES)
        _write_authority(draft / "ca", authority, seed, lease_secret)
        _write_client(draft / "client", authority, seed)
        for member in seed.members:
            write_member(draft / member.name, member, authority, seed, lease_secret)
        for folder in folders:
            (draft / folder).rename(out / folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_authority(folder: Path, authority: Authority, seed: Seed, lease_secret: bytes) -> None:
    folder.mkdir(mode=0o700)
    write_public(folder / "ca.crt", authority.issued.certificate_pem)
    write_secret(folder / "ca.key", authority.issued.key_pem)
    write_secret(folder / "lease.secret", lease_secret.hex() + "\n")
    write_public(folder / "README", _CA_NOTE.format(cluster=seed.cluster))


def _write_client(folder: Path, authority: Authority, seed: Seed) -> None:
    write_client_folder(folder, authority, authority.issue_admin("admin"), seed.cluster, servers(seed.members))


def write_client_folder(
    folder: Path, authority: Authority, issued: Issued, cluster: str, reachable: Sequence[str]
) -> None:
    """client.yaml with the certificate that it names."""
    folder.mkdir(mode=0o755)
    write_public(folder / "ca.crt", authority.issued.certificate_pem)
    write_public(folder / "client.crt", issued.certificate_pem)
    write_secret(folder / "client.key", issued.key_pem)
    settings = {
        "cluster": cluster,
        "servers": list(reachable),
        "tls": {"ca": "ca.crt", "certificate": "client.crt", "key": "client.key"},
    }
    write_public(folder / "client.yaml", _yaml("Client settings; any of the servers serves.", settings))


def write_member(folder: Path, member: Member, authority: Authority, seed: Seed, lease_secret: bytes) -> None:
    folder.mkdir(mode=0o755)
    issued = authority.issue_node(member.name, member.addresses)
    write_public(folder / "ca.crt", authority.issued.certificate_pem)
    write_public(folder / "node.crt", issued.certificate_pem)
    write_secret(folder / "node.key", issued.key_pem)
    write_secret(folder / "node.secret", derive_key(lease_secret, member.name).hex() + "\n")
    if member.votes:
        write_secret(folder / "lease.secret", lease_secret.hex() + "\n")
    settings = {
        "cluster": seed.cluster,
        "clusterId": seed.cluster_id,
        "node": member.name,
        "profile": seed.profile,
        "timing": {key: show(value) for key, (_, value) in figures(PROFILES[seed.profile]).items()},
        **({"policy": seed.policy} if seed.policy else {}),
        **({"arbiter": seed.arbiter} if seed.arbiter else {}),
        "members": [_member_settings(m) for m in seed.members],
        "tls": {"ca": "ca.crt", "certificate": "node.crt", "key": "node.key"},
        **({"leaseSecret": "lease.secret"} if member.votes else {}),
        "nodeSecret": "node.secret",
    }
    heading = "Who this node is. Paths are relative to this file; 'profile' and 'timing' only seed a new cluster."
    write_public(folder / "node.yaml", _yaml(heading, settings))


def _member_settings(member: Member) -> dict[str, object]:
    return {
        "name": member.name,
        "role": member.role,
        "addresses": list(member.addresses),
        "apiPort": member.api_port,
        "raftPort": member.raft_port,
        "leasePort": member.lease_port,
    }


def _yaml(heading: str, content: Mapping[str, object]) -> str:
    return f"# {heading}\n" + yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=120)


def _say_what_next(seed: Seed, out: Path) -> None:
    click.echo(
        f"cluster {seed.cluster}: {len(seed.members)} members, {len(seed.voters)} of them vote; written to {out}"
    )
    if seed.policy:
        click.echo(
            f"  two nodes, policy {seed.policy}: {_MEANS[seed.policy]} (docs/two-nodes.md);"
            " --witness NAME=ADDR makes failover automatic and safe"
        )
    for member in seed.members:
        verb = "witness" if member.role == "Witness" else "node"
        path = out / member.name
        click.echo(f"  on {member.name}: copy {path}/, then: hasys {verb} run --config {member.name}/node.yaml")
    click.echo(f"  here: export HASYS_CONTEXT={(out / 'client' / 'client.yaml').resolve()}; hasys status -w")
    click.echo(f"  keep {out / 'ca'}/ in a safe place, off the servers")
