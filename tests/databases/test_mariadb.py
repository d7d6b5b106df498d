"""MariaDB of Debian on a shared disk: killed and moved again and again, nothing acknowledged is lost."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.databases.conftest import VIP, stage

SERVER = Path("/usr/sbin/mariadbd")
DATABASE = """---
apiVersion: hasys/v1
kind: Database
metadata: {name: server, group: db}
spec:
  after: [disk, db-ip]
  user: mysql
  workingDirectory: "{point}"
  start: [sh, "{point}/start", "{point}"]
  stop: [mariadb-admin, --no-defaults, -S, "{point}/sock", -u, mysql, shutdown]
  status: [mariadb-admin, --no-defaults, -S, "{point}/sock", -u, mysql, --silent, ping]
  checkInterval: 500ms
  startTimeout: 60s
"""
START = """cd "$1" && rm -f sock
mariadbd --no-defaults --datadir="$1/data" --socket="$1/sock" --pid-file="$1/pid" --bind-address=0.0.0.0 --port=3306 \\
  --innodb-buffer-pool-size=32M --innodb-log-file-size=32M --skip-name-resolve >>log 2>&1 &
until mariadb-admin --no-defaults -S sock -u mysql --silent ping >/dev/null 2>&1; do
  kill -0 $! || { tail -n 1 log; exit 1; }
  sleep 0.1
done
"""
"""Returns when it serves, as a start command must."""
USERS = """create database d;
create table d.t (n int) engine=innodb;
create user w@'10.77.0.%';
grant all on d.* to w@'10.77.0.%';
"""


def fill(point: Path) -> None:
    """A new database with one table, and a user for the client."""
    data = point / "data"
    data.mkdir()
    for path in (point, data):
        shutil.chown(path, "mysql", "mysql")
    (point / "start").write_text(START)
    install = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=mysql", "--skip-test-db"]
    subprocess.run(install, check=True, capture_output=True)
    bootstrap: list[str | Path] = [SERVER, "--no-defaults", "--bootstrap", f"--datadir={data}", "--user=mysql"]
    statements = "flush privileges;\n" + USERS
    subprocess.run(bootstrap, input=statements.encode(), check=True, capture_output=True)


@pytest.mark.timeout(3600)
@pytest.mark.skipif(not SERVER.exists(), reason="needs MariaDB: make databases")
def test_b4_mariadb_on_a_shared_disk_loses_nothing_that_was_acknowledged() -> None:
    connection = f"--no-defaults -h {VIP} -u w --connect-timeout=2 d"
    insert = f'mariadb {connection} -e "insert into t values ($n)"'
    with stage(fill, DATABASE, "mariadbd", insert, ("mariadb", *connection.split(), "-NBe", "select n from t")) as made:
        made.torture()
