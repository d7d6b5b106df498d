"""Where manifests come from: files, folders, standard input."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hasys.model.errors import Refused

_Command = TypeVar("_Command", bound=Callable[..., Any])

_SUFFIXES = (".yaml", ".yml", ".json")
LIMIT = 4 << 20
"""Bytes of one input: what a server accepts in one request."""


def file_option(*, required: bool) -> Callable[[_Command], _Command]:
    """``-f FILE|DIR|-``, several times."""
    return click.option(
        "-f", "--filename", "names", multiple=True, required=required, metavar="FILE|DIR|-",
        help="A manifest, a folder of them (*.yaml, *.yml, *.json), or - for standard input. Can be repeated.",
    )  # fmt: skip


def read_all(names: Sequence[str]) -> list[tuple[str, str]]:
    """Name and text of every manifest. Raises :class:`Refused` naming what cannot be read."""
    return [(name, _text(name, data)) for name, data in _inputs(names)]


def _inputs(names: Sequence[str]) -> Iterable[tuple[str, bytes]]:
    for name in names:
        if name == "-":
            yield "standard input", sys.stdin.buffer.read(LIMIT + 1)
            continue
        path = Path(name)
        if not path.is_dir():
            yield name, _bytes(path)
            continue
        found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file())
        if not found:
            raise Refused(f"{name}: no manifest in this folder ({', '.join('*' + suffix for suffix in _SUFFIXES)})")
        for file in found:
            yield str(file), _bytes(file)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(LIMIT + 1)
    except OSError as error:
        raise Refused(f"{path}: {error.strerror}") from None


def _text(name: str, data: bytes) -> str:
    if len(data) > LIMIT:
        raise Refused(f"{name}: more than {LIMIT >> 20} MiB: split it")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Refused(f"{name}:{line}: not UTF-8 text") from None
