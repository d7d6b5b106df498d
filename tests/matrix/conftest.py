"""The stage of the lab's failover tests, one for all rows."""

from __future__ import annotations

from tests.lab.conftest import act, lab, stage

__all__ = ["act", "lab", "stage"]
