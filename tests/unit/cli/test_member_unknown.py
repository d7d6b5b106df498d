"""``hasys member`` when a server's answer is lost: what is kept, and what is said."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import Result

from hasys.cli import member
from hasys.model.errors import HasysError, NoMajority, Refused, TimedOut, Unavailable, Unknown, Unreached
from hasys.v1 import api_pb2 as api
from hasys.v1 import objects_pb2 as pb
from tests.unit.cli.conftest import Run


@dataclass
class Members:
    """A cluster that answers about its members, until it is to fail."""

    adding: HasysError | None = None
    removing: HasysError | None = None
    names: list[str] = field(default_factory=lambda: ["n1", "n2"])

    async def __aenter__(self) -> Members:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def members(self) -> api.ListMembersResponse:
        return api.ListMembersResponse(members=[api.MemberView(name=n, state="Follower") for n in self.names])

    async def add_member(self, name: str, spec: pb.NodeSpec) -> api.ChangeMemberResponse:
        if self.adding:
            raise self.adding
        self.names.append(name)
        return api.ChangeMemberResponse()

    async def remove_member(self, name: str) -> api.ChangeMemberResponse:
        if self.removing:
            raise self.removing
        return api.ChangeMemberResponse()


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Members:
    """The cluster that the commands of the test speak to; a folder is just made."""

    def write(new: member.Newcomer, known: api.ListMembersResponse) -> Path:
        target = new.out / new.member.name
        target.mkdir()
        return target

    made = Members()
    monkeypatch.setattr(member, "_client", lambda: made)
    monkeypatch.setattr(member, "_write_folder", write)
    return made


def change(hasys: Run, out: Path, *words: str) -> Result:
    return hasys("member", *words, "--address", "127.0.0.9", "--ca", out, "--out", out)


@pytest.mark.parametrize("error", [TimedOut("no answer within 20 s"), Unknown("the answer was lost")])
def test_an_addition_of_unknown_outcome_keeps_the_newcomer_s_folder_and_says_what_to_do(
    hasys: Run, members: Members, tmp_path: Path, error: HasysError
) -> None:
    members.adding = error
    result = change(hasys, tmp_path, "add", "n4")
    assert (tmp_path / "n4").exists(), "it may be a member, and its keys are nowhere else"
    assert result.exit_code == 4
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"hasys: {error}; {tmp_path / 'n4'} is kept: if 'hasys member list' shows n4, go on with it")
    assert line.endswith("if not, remove the folder and repeat the command")


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """SIGINT means what it does at a terminal; tests that run in the background were started with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_an_addition_that_ctrl_c_interrupts_keeps_the_folder_and_says_so(
    hasys: Run, members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def interrupted(*_: object) -> api.ChangeMemberResponse:
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(10.0)
        return api.ChangeMemberResponse()

    monkeypatch.setattr(members, "add_member", interrupted)
    result = change(hasys, tmp_path, "add", "n4")
    assert (tmp_path / "n4").exists()
    assert result.exit_code == 130
    assert result.stderr.startswith(f"{tmp_path / 'n4'} is kept: ")


@pytest.mark.parametrize("error", [Refused("no"), Unavailable("no leader"), NoMajority("none"), Unreached("nobody")])
def test_an_addition_that_was_not_made_for_sure_leaves_no_folder(
    hasys: Run, members: Members, tmp_path: Path, error: HasysError
) -> None:
    members.adding = error
    result = change(hasys, tmp_path, "add", "n4")
    assert not (tmp_path / "n4").exists()
    assert result.stderr == f"hasys: {error}\n"


def test_a_change_of_addresses_of_unknown_outcome_speaks_of_no_folder(
    hasys: Run, members: Members, tmp_path: Path
) -> None:
    members.adding = Unknown("the answer was lost")
    assert change(hasys, tmp_path, "add", "n2").stderr == "hasys: the answer was lost\n"


@pytest.mark.parametrize(("known", "status"), [(["n1", "n2"], 4), (["n1", "n2", "n4"], 3)])
def test_a_replacement_is_status_3_only_when_it_added_nobody(
    hasys: Run, members: Members, tmp_path: Path, known: list[str], status: int
) -> None:
    members.names, members.removing = known, Unreached("no server reached")
    result = change(hasys, tmp_path, "replace", "n2", "n4")
    assert result.exit_code == status, result.output
    told = "n4 is added, n2 is not removed: no server reached; the same command again goes on"
    assert (told in result.stderr) == (status == 4)
