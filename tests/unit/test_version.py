"""One version, said in two places."""

from __future__ import annotations

import tomllib
from pathlib import Path

import hasys


def test_the_package_says_the_version_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert hasys.__version__ == project["version"]
