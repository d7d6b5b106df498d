"""Secrets in files: who may read them, and folders that others could have prepared."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from hasys.api.client import load_context
from hasys.cli.pki import Authority
from hasys.config import load
from hasys.files import private_folder
from hasys.guard.plan import Book, PlanFile
from hasys.model.errors import ConfigRefused
from hasys.store.raft.disk import Folder
from tests.unit.cli.conftest import Run, folders, hasys  # noqa: F401  (fixtures)


@pytest.mark.parametrize(
    ("file", "named"), [("node.key", "tls.key"), ("node.secret", "nodeSecret"), ("lease.secret", "leaseSecret")]
)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_nodes_secret_that_others_may_read_is_refused(folders: Path, file: str, named: str, mode: int) -> None:  # noqa: F811
    load(folders / "n1")
    (folders / "n1" / file).chmod(mode)
    with pytest.raises(ConfigRefused, match=rf"{named}: .*{file} can be read by others .*chmod 600"):
        load(folders / "n1")


def test_a_clients_key_that_others_may_read_is_refused(folders: Path) -> None:  # noqa: F811
    load_context(folders / "client")
    (folders / "client" / "client.key").chmod(0o644)
    with pytest.raises(ConfigRefused, match=r"client\.key can be read by others"):
        load_context(folders / "client")


def test_the_authoritys_key_that_others_may_read_is_refused(folders: Path) -> None:  # noqa: F811
    Authority.load(folders / "ca")
    (folders / "ca" / "ca.key").chmod(0o644)
    with pytest.raises(ConfigRefused, match=r"ca\.key can be read by others"):
        Authority.load(folders / "ca")


def test_a_renewed_key_is_private_and_nothing_is_left_beside_it(hasys: Run, folders: Path) -> None:  # noqa: F811
    mask = os.umask(0)
    try:
        assert hasys("cert", "renew", folders / "n1", "--ca", folders / "ca").exit_code == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE((folders / "n1" / "node.key").stat().st_mode) == 0o600
    assert [p.name for p in (folders / "n1").iterdir() if p.name.endswith(".new")] == []


def test_the_journal_is_its_owners_alone_whatever_the_mask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        disk = Folder(tmp_path / "data")
        disk.create("journal", b"x")
        assert disk.lock()
        disk.close()
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "data").iterdir()} == {0o600}


def test_an_existing_data_folder_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    Folder(tmp_path / "data").close()
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700


def test_a_run_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        private_folder(tmp_path / "run" / "demo-n1")
        PlanFile(tmp_path / "other" / "plan").save(Book())
    finally:
        os.umask(mask)
    for made in (tmp_path / "run" / "demo-n1", tmp_path / "run", tmp_path / "other"):
        assert stat.S_IMODE(made.stat().st_mode) & 0o022 == 0, made
    assert stat.S_IMODE((tmp_path / "run" / "demo-n1").stat().st_mode) == 0o700


def test_a_run_folder_that_is_a_link_or_belongs_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigRefused, match="link is a symbolic link"):
        private_folder(tmp_path / "link")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ConfigRefused, match="can be written by others"):
        private_folder(tmp_path / "open")
    if os.geteuid() == 0:
        (tmp_path / "theirs").mkdir()
        os.chown(tmp_path / "theirs", 65534, 65534)
        with pytest.raises(ConfigRefused, match="belongs to another user"):
            private_folder(tmp_path / "theirs")


def test_a_prepared_link_beside_the_plan_is_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    plan = tmp_path / "plan"
    plan.with_suffix(".new").symlink_to(victim)
    PlanFile(plan).save(Book())
    assert victim.read_text() == "precious"
    assert not plan.is_symlink()
