"""The cheap look at the kernel's addresses."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from hasys.resources.fingerprint import Fingerprint
from hasys.resources.hints import Hints
from tests.lab.network import ip, own_network

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@pytest.fixture
def fingerprint() -> Iterator[Fingerprint]:
    with own_network():
        made = Fingerprint()
        yield made
        made.close()


def test_it_changes_with_each_address_and_only_then(fingerprint: Fingerprint) -> None:
    assert fingerprint.changed()
    assert not fingerprint.changed()
    for command in ("add", "del"):
        for address in ("10.9.0.7/32", "fd09::7/128"):
            ip("address", command, address, "dev", "lo")
            assert fingerprint.changed()
            assert not fingerprint.changed()


def test_a_dump_of_many_buffers_is_read_to_its_end(fingerprint: Fingerprint) -> None:
    batch = "\n".join(f"address add 10.8.{net}.{n}/32 dev lo" for net in range(8) for n in range(1, 255))
    subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)
    assert fingerprint.changed()
    assert not fingerprint.changed()
    ip("address", "del", "10.8.7.254/32", "dev", "lo")
    assert fingerprint.changed()


def test_a_wait_ends_with_a_change_and_when_it_is_closed() -> None:
    with own_network():
        hints = Hints()
        ip("address", "add", "10.9.0.7/32", "dev", "lo")
        assert hints.wait()
        waiting = threading.Thread(target=hints.wait)
        waiting.start()
        hints.close()
        waiting.join(5)
        assert not waiting.is_alive()
