"""``--rewrite`` puts what happened into the scenario files. Commit a rewrite only if you understand the difference."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write the narratives of scenarios anew")
