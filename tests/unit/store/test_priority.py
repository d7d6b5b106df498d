"""How the kernel sees a store process."""

from __future__ import annotations

import os
import subprocess
import sys

from hasys.store.main import NICE

_RUN = """
import asyncio, os
from types import SimpleNamespace
from hasys.config import Log
from hasys.store import main
asyncio.run = lambda job: (job.close(), print(os.getpriority(os.PRIO_PROCESS, 0)))
main.run(SimpleNamespace(name="n1", log=Log()))
"""


def test_a_store_runs_before_ordinary_work_where_that_is_allowed_and_runs_anyway() -> None:
    done = subprocess.run([sys.executable, "-c", _RUN], capture_output=True, text=True, check=True)
    assert int(done.stdout) == (NICE if os.geteuid() == 0 else os.getpriority(os.PRIO_PROCESS, 0))
