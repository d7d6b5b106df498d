"""Output of the children: repeated in whole lines, never blocking, bounded on disk."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hasys.cli.tail import Tail, Terminal
from hasys.config import Log


class Pipe:
    """A terminal that is a pipe of one page."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.reading, False)
        self.terminal = Terminal(self.writing)

    def read(self) -> bytes:
        try:
            return os.read(self.reading, 1 << 20)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "store.log"


def _append(log: Path, text: bytes) -> None:
    with log.open("ab") as file:
        file.write(text)


def test_each_whole_line_is_repeated_once_with_its_prefix(log: Path, pipe: Pipe) -> None:
    tail = Tail(log, "store | ", pipe.terminal)
    _append(log, b"one\ntwo\nhal")
    tail.follow()
    tail.follow()
    assert pipe.read() == b"store | one\nstore | two\n"
    _append(log, b"f\n")
    tail.follow()
    assert pipe.read() == b"store | half\n"


def test_what_was_there_before_is_not_repeated(log: Path, pipe: Pipe) -> None:
    _append(log, b"old\n")
    tail = Tail(log, "", pipe.terminal)
    _append(log, b"new\n")
    tail.follow()
    assert pipe.read() == b"new\n"


def test_a_full_terminal_takes_nothing_and_loses_nothing(log: Path, pipe: Pipe) -> None:
    tail = Tail(log, "", pipe.terminal)
    lines = [b"%04d %s\n" % (i, b"x" * 90) for i in range(300)]
    _append(log, b"".join(lines))
    got = b""
    while len(got) < sum(map(len, lines)):
        tail.follow()
        part = pipe.read()
        assert part
        got += part
    assert got == b"".join(lines)


def test_an_endless_line_is_cut_and_does_not_stop_the_rest(log: Path, pipe: Pipe) -> None:
    tail = Tail(log, "", pipe.terminal)
    _append(log, b"y" * 10_000 + b"\nend\n")
    got = b""
    for _ in range(10):
        tail.follow()
        got += pipe.read()
    assert got.replace(b"\n", b"") == b"y" * 10_000 + b"end"
    assert got.endswith(b"end\n")


def test_a_reader_that_went_away_is_forgotten(log: Path) -> None:
    reading, writing = os.pipe()
    terminal = Terminal(writing)
    tail = Tail(log, "", terminal)
    os.close(reading)
    _append(log, b"one\n")
    tail.follow()
    terminal.print(b"two\n")
    assert not terminal.ready
    os.close(writing)


def test_a_file_over_its_limit_is_kept_once_and_begun_anew(log: Path, pipe: Pipe) -> None:
    tail = Tail(log, "", pipe.terminal)
    descriptor = tail.open_for_child()
    os.write(descriptor, b"z" * 4 * Log().size + b"\n")
    tail.follow()
    assert log.stat().st_size == 0
    assert log.with_name("store.log.1").stat().st_size == 4 * Log().size + 1
    os.write(descriptor, b"after\n")
    assert log.read_bytes() == b"after\n"
    os.close(descriptor)


def test_as_many_full_files_are_kept_as_the_settings_say_and_no_more(log: Path, pipe: Pipe) -> None:
    tail = Tail(log, "", pipe.terminal, Log(size=64 << 10, keep=2))
    for number in range(4):
        _append(log, b"%d" % number * (4 * 64 << 10) + b"\n")
        tail.follow()
    assert sorted(path.name for path in log.parent.iterdir()) == ["store.log", "store.log.1", "store.log.2"]
    assert [log.with_name(f"store.log.{n}").read_bytes()[:1] for n in (1, 2)] == [b"3", b"2"]
    assert log.stat().st_size == 0
