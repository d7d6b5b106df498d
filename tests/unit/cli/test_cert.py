"""``hasys cert``: what it shows, renews and issues."""

from __future__ import annotations

import datetime
import json
import stat
from pathlib import Path

import pytest
import yaml

from hasys import config as node_config
from hasys.cli import pki
from hasys.cli.pki import Authority, read_certificate
from tests.unit.cli.conftest import Run


def test_show_lists_every_certificate_of_a_folder_with_its_end(hasys: Run, folders: Path) -> None:
    rows = json.loads(hasys("cert", "show", folders / "n1", "-o", "json").stdout)
    assert [(row["role"], row["name"], row["state"]) for row in rows] == [
        ("authority", "demo CA", "valid"), ("node", "n1", "valid"),
    ]  # fmt: skip
    assert rows[1]["daysLeft"] == pki.LEAF_LIFETIME.days
    assert rows[1]["addresses"] == ["127.0.0.1"]


@pytest.mark.parametrize(("hours", "days"), [(730 * 24 + 1, 730), (730 * 24 - 1, 730), (3, 0), (-3, 0), (-20, -1)])
def test_days_left_are_rounded_to_the_nearest(
    hasys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int, days: int
) -> None:
    monkeypatch.setattr(pki, "LEAF_LIFETIME", datetime.timedelta(hours=hours))
    assert hasys("init", "--cluster", "c", "--node", "n1=127.0.0.1", "--out", tmp_path / "c").exit_code == 0
    (row,) = json.loads(hasys("cert", "show", tmp_path / "c" / "n1" / "node.crt", "-o", "json").stdout)
    assert row["daysLeft"] == days


def test_show_without_argument_shows_the_current_context(hasys: Run, folders: Path) -> None:
    result = hasys("cert", "show", "--context", folders / "client" / "client.yaml")
    assert result.exit_code == 0
    assert "admin" in result.stdout


def test_show_fails_when_one_is_expired(hasys: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "LEAF_LIFETIME", -datetime.timedelta(hours=1))
    out = tmp_path / "old"
    assert hasys("init", "--cluster", "c", "--node", "n1=127.0.0.1", "--out", out).exit_code == 0
    result = hasys("cert", "show", out / "n1")
    assert result.exit_code == 1
    assert "expired" in result.stdout
    assert "hasys cert renew" in result.stderr


@pytest.mark.parametrize(("folder", "file"), [("n1", "node"), ("client", "client")])
def test_renew_keeps_who_it_is_and_changes_the_key(hasys: Run, folders: Path, folder: str, file: str) -> None:
    path = folders / folder / f"{file}.crt"
    before, key_before = read_certificate(path), path.with_suffix(".key").read_bytes()
    result = hasys("cert", "renew", folders / folder, "--ca", folders / "ca")
    assert result.exit_code == 0, result.output
    after = read_certificate(path)
    assert after.subject == before.subject
    assert after.serial_number != before.serial_number
    assert path.with_suffix(".key").read_bytes() != key_before
    assert stat.S_IMODE(path.with_suffix(".key").stat().st_mode) == 0o600
    assert not list((folders / folder).glob(".*"))
    if folder == "n1":
        assert hasys("cert", "show", folders / "n1", "-o", "json").stdout.count("127.0.0.1") == 1
        assert node_config.load(folders / "n1").name == "n1"


def test_renew_with_another_cluster_s_authority_is_refused(hasys: Run, folders: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert hasys("init", "--cluster", "demo", "--node", "n1=127.0.0.1", "--out", other).exit_code == 0
    before = (folders / "n1" / "node.crt").read_bytes()
    result = hasys("cert", "renew", folders / "n1", "--ca", other / "ca")
    assert result.exit_code == 1
    assert "another cluster" in result.stderr
    assert (folders / "n1" / "node.crt").read_bytes() == before


def test_issue_makes_a_working_context_for_another_person(hasys: Run, folders: Path, tmp_path: Path) -> None:
    out = tmp_path / "bob"
    assert hasys("cert", "issue", "bob", "--ca", folders / "ca", "--out", out).exit_code == 0
    settings = yaml.safe_load((out / "client.yaml").read_text())
    assert settings == yaml.safe_load((folders / "client" / "client.yaml").read_text())
    certificate = read_certificate(out / "client.crt")
    assert (pki.unit(certificate), pki.common_name(certificate)) == ("admin", "bob")
    authority = Authority.load(folders / "ca").issued.certificate
    certificate.verify_directly_issued_by(authority)
    assert hasys("cert", "issue", "bob", "--ca", folders / "ca", "--out", out).exit_code == 1


@pytest.mark.parametrize("text", ["since: 2026-02-31", "a: " + "[" * 5000, "cluster: [", "[]", f"a: {'9' * 5000}"])
def test_settings_that_cannot_be_read_are_one_clear_line(hasys: Run, folders: Path, tmp_path: Path, text: str) -> None:
    (folders / "client" / "client.yaml").write_text(text)
    result = hasys("cert", "issue", "bob", "--ca", folders / "ca", "--out", tmp_path / "bob")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "not client settings" in result.stderr


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"])
def test_a_broken_authority_is_one_clear_line(hasys: Run, folders: Path, broken: bytes) -> None:
    (folders / "ca" / "ca.key").write_bytes(broken)
    result = hasys("cert", "renew", folders / "n1", "--ca", folders / "ca")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "ca.key" in result.stderr
