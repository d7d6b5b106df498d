"""nginx of Debian on a shared disk, which clients put files on: killed and moved again and again, none is lost.

nginx does not sync what it writes, and a machine of the lab that loses its power leaves the kernel's cache of the disk
behind: this shows what failover loses, not what a disk does.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.databases.conftest import VIP, stage

PORT = 8080
SERVER = """---
apiVersion: hasys/v1
kind: Application
metadata: {name: server, group: db}
spec:
  after: [disk, db-ip]
  run: {command: [nginx, -c, "{point}/nginx.conf", -e, "{point}/error.log"], stopTimeout: 5s}
"""
CONFIGURATION = """daemon off; pid {point}/nginx.pid; user root;
events {}
http {
  access_log off; client_body_temp_path {point}/body;
  server { listen 8080; root {point}/files; dav_methods PUT; autoindex on; autoindex_format json; }
}
"""


def fill(point: Path) -> None:
    """The configuration, and an empty folder."""
    (point / "files").mkdir()
    (point / "nginx.conf").write_text(CONFIGURATION.replace("{point}", str(point)))


@pytest.mark.timeout(3600)
@pytest.mark.skipif(shutil.which("nginx") is None or shutil.which("curl") is None, reason="needs nginx: make databases")
def test_b3_files_put_on_nginx_on_a_shared_disk_are_there_after_every_failover() -> None:
    url = f"http://{VIP}:{PORT}/"
    insert = f"curl -sf -m 5 -o /dev/null -X PUT --data-binary $n {url}$n"
    ask = ("sh", "-c", f"curl -sf -m 5 {url} | grep -o '\"name\":\"[0-9]*\"' | tr -dc '0-9\\n'")
    with stage(fill, SERVER, "nginx: master", insert, ask) as made:
        made.torture()
