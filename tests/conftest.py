"""Settings of every test: random examples are judged by what they show, never by how long the machine took."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, settings

from tests.loops import Policy

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
asyncio.set_event_loop_policy(Policy())


@pytest.fixture
def anyio_backend() -> str:
    """As hasys runs. Folders whose time is virtual say otherwise."""
    return "asyncio"
