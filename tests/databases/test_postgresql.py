"""PostgreSQL of Debian on a shared disk: killed and moved again and again, nothing acknowledged is lost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.databases.conftest import VIP, stage

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), Path("/none"))
DATABASE = f"""---
apiVersion: hasys/v1
kind: Database
metadata: {{name: server, group: db}}
spec:
  after: [disk, db-ip]
  user: postgres
  workingDirectory: "{{point}}"
  start: [{BINARIES}/pg_ctl, -D, "{{point}}/data", -l, "{{point}}/log", -w, -t, "60", start]
  stop: [{BINARIES}/pg_ctl, -D, "{{point}}/data", -m, fast, -w, stop]
  status: [{BINARIES}/pg_isready, -q, -h, "{{point}}"]
  checkInterval: 500ms
  startTimeout: 60s
"""
CONNECTION = f"host={VIP} user=postgres dbname=postgres connect_timeout=2 tcp_user_timeout=2000"


def fill(point: Path) -> None:
    """A new database with one table."""
    shutil.chown(point, "postgres", "postgres")
    data = point / "data"
    run = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    initdb: list[str | Path] = [*run, BINARIES / "initdb", "-D", data, "-A", "trust"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=point)
    with (data / "postgresql.conf").open("a") as f:
        f.write(f"\nlisten_addresses = '*'\nunix_socket_directories = '{point}'\nmax_wal_size = 64MB\n")
    with (data / "pg_hba.conf").open("a") as f:
        f.write("\nhost all all 10.77.0.0/24 trust\n")
    single: list[str | Path] = [*run, BINARIES / "postgres", "--single", "-D", data, "postgres"]
    subprocess.run(single, input=b"create table t (n int)\n", check=True, capture_output=True, cwd=point)


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not (BINARIES / "initdb").exists(), reason="needs PostgreSQL: make databases")
def test_b4_postgresql_on_a_shared_disk_loses_nothing_that_was_acknowledged() -> None:
    insert = f'psql -qX "{CONNECTION}" -c "insert into t values ($n)"'
    ask = ("psql", "-qXtA", CONNECTION, "-c", "select n from t")
    with stage(fill, DATABASE, "postgres", insert, ask) as made:
        made.torture()
