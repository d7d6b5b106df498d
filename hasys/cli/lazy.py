"""A click group that imports a command's module when the command is used, so that ``hasys version`` starts quickly."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from hasys.cli import exits
from hasys.model.errors import HasysError


@dataclass(frozen=True, slots=True)
class Lazy:
    """Where a command lives, and the line that ``--help`` shows for it without importing it."""

    module: str
    attribute: str
    summary: str
    section: str

    def load(self) -> click.Command:
        command = getattr(importlib.import_module(self.module), self.attribute)
        assert isinstance(command, click.Command)
        return command


class LazyGroup(click.Group):
    """The root of the commands: lazy, sorted into sections, and the one place where errors become exit statuses."""

    def __init__(self, *args: Any, table: Mapping[str, Lazy], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = self.table.get(cmd_name)
        return lazy.load() if lazy else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.table and not args[0].startswith("-"):
            ctx.fail(f"no such command: {args[0]!r}{_nearest(args[0], self.table)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for section in dict.fromkeys(lazy.section for lazy in self.table.values()):
            rows = [(name, lazy.summary) for name, lazy in self.table.items() if lazy.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and end the process with the status that the contract gives to its outcome."""
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except HasysError as error:
            _end(exits.status_of(error), str(error))
        except click.UsageError as error:
            error.show()
            _end(exits.USAGE)
        except click.ClickException as error:
            _end(exits.REFUSED, error.format_message())
        except click.Abort as abort:
            if isinstance(abort.__cause__, KeyboardInterrupt):
                _end(exits.INTERRUPTED)
            _end(exits.REFUSED, "not confirmed: nothing was done")
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(exits.REFUSED)
        except OSError as error:
            _end(exits.REFUSED, _os_error(error))
        except Exception as error:
            if os.environ.get("HASYS_DEBUG"):
                raise
            _end(exits.REFUSED, f"internal error: {type(error).__name__}: {error}; HASYS_DEBUG=1 shows where")
        sys.exit(result if isinstance(result, int) else exits.DONE)


def _end(status: int, message: str = "") -> None:
    if message:
        click.echo(f"hasys: {message}", err=True)
    sys.exit(status)


def _os_error(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def _nearest(word: str, known: Mapping[str, Lazy]) -> str:
    import difflib  # only on a mistake

    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
