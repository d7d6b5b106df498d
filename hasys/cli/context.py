"""Which cluster a command speaks to: ``--context`` before or after it, else the environment, else home."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_KEY = "hasys.cli.context"
_Command = TypeVar("_Command", bound=Callable[..., Any])


def remember_context(ctx: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Callback of ``--context``: the one given last (nearest to the command's own arguments) counts."""
    if value:
        ctx.find_root().meta[_KEY] = value


def context_option(command: _Command) -> _Command:
    """Accept ``--context FILE`` after the command as well."""
    return click.option(
        "--context", metavar="FILE", expose_value=False, callback=remember_context, help="Client settings of a cluster."
    )(command)


def context_path() -> Path:
    """The client settings to use. The file need not exist; reading it says so with the mend."""
    given = click.get_current_context().find_root().meta.get(_KEY) or os.environ.get("HASYS_CONTEXT")
    if given:
        return Path(given)
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "hasys" / "client.yaml"
