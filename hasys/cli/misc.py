"""``version``, ``completion`` and ``demo``: the small ones."""

from __future__ import annotations

import importlib.metadata

import click


@click.command()
def version() -> None:
    """Print the version of this program."""
    click.echo(f"hasys {current_version()}")


def current_version() -> str:
    """The installed version."""
    return importlib.metadata.version("hasys")


_INSTALL_HINTS = {
    "bash": 'eval "$(hasys completion bash)"      # in ~/.bashrc',
    "zsh": 'eval "$(hasys completion zsh)"       # in ~/.zshrc, after compinit',
    "fish": "hasys completion fish | source     # in ~/.config/fish/config.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(list(_INSTALL_HINTS)))
def completion(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    bash:  eval "$(hasys completion bash)"      in ~/.bashrc
    zsh:   eval "$(hasys completion zsh)"       in ~/.zshrc, after compinit
    fish:  hasys completion fish | source      in ~/.config/fish/config.fish
    """
    from click.shell_completion import get_completion_class

    from hasys.cli.main import app

    kind = get_completion_class(shell)
    assert kind is not None, "click knows every shell of the choice"
    click.echo(f"# {_INSTALL_HINTS[shell]}")
    click.echo(kind(app, {}, "hasys", "_HASYS_COMPLETE").source())


@click.command()
@click.option("--keep", is_flag=True, help="Leave the cluster running and print commands to try.")
def demo(keep: bool) -> int:
    """Three machines made of namespaces, a web server behind a virtual IP, and a power cut to watch (root)."""
    from hasys.lab.demo import run

    return int(run(keep))
