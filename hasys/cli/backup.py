"""``hasys backup`` and ``hasys restore``."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import click

from hasys.cli.context import context_option, context_path
from hasys.config import load
from hasys.model.errors import Refused
from hasys.v1.api_pb2 import BackupHeader


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@context_option
def backup(file: Path) -> None:
    """Write the whole store, as it is now, to FILE. It holds every object, also secrets in manifests: keep it safe."""
    header, data = asyncio.run(_read())
    from hasys.store.restore import Backup, write_backup

    _write(file, write_backup(Backup(header, data)))
    click.echo(f"{file}: cluster {header.cluster} at version {header.resource_version}, {len(data)} bytes")


async def _read() -> tuple[BackupHeader, bytes]:
    from hasys.api.client import Client, load_context

    header, data, digest = BackupHeader(), bytearray(), b""
    async with Client(load_context(context_path())) as client:
        async for part in client.backup():
            if part.HasField("header"):
                header = part.header
            data += part.data
            digest = part.sha256 or digest
    if len(data) != header.size or hashlib.sha256(data).digest() != digest:
        raise Refused("the backup did not arrive whole: try again")
    return header, bytes(data)


def _write(file: Path, content: bytes) -> None:
    """Whole or not at all, and on disk when this returns."""
    draft = file.with_name(file.name + ".new")
    try:
        fd = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except OSError as e:
        raise Refused(f"{file}: {e.strerror}") from None


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--config", "path", required=True, type=click.Path(path_type=Path), metavar="NODE.YAML",
              help="Of the member whose empty data folder is filled.")  # fmt: skip
def restore(file: Path, path: Path) -> None:
    """Begin the store anew from a backup, on one stopped member with an empty data folder.

    Every other member must be stopped, and start again with an empty data folder: it then copies the restored log and
    votes again. What was written after the backup is lost.
    """
    from hasys.store.restore import read_backup
    from hasys.store.restore import restore as fill

    config = load(path)
    try:
        found = read_backup(file.read_bytes())
        others = fill(config, found)
    except OSError as e:
        raise Refused(f"{e.filename or file}: {e.strerror}") from None
    header = found.header
    click.echo(f"{config.data_dir}: cluster {header.cluster} as of version {header.resource_version}")
    click.echo(f"start {config.name} first: alone it leads")
    if others:
        click.echo(f"then, on {', '.join(others)}: remove the data folder, and start; each votes once it has caught up")
