"""What a store process loads."""

from __future__ import annotations

import subprocess
import sys


def test_a_store_process_does_not_load_cryptography() -> None:
    """PySyncObj would, for passwords that our transport does not use: 9 MB of each store's memory."""
    loaded = "import hasys.store.main, sys; print([m for m in sys.modules if m.startswith('cryptography')])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_was_loaded_before_the_engine_stays_usable() -> None:
    loaded = (
        "import cryptography.x509, hasys.store.raft.core, sys;"
        "from cryptography.hazmat.primitives import hashes; print(hashes.SHA256().name)"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "sha256"


def test_the_engine_leaves_cryptography_to_be_loaded_later() -> None:
    loaded = (
        "import hasys.store.raft.core; from cryptography.hazmat.primitives import hashes; print(hashes.SHA256().name)"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "sha256"
