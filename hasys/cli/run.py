"""``hasys node|witness|store|agent|guard run``: the processes of a node."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import click

from hasys.cli import exits
from hasys.cli.context import context_option
from hasys.config import NodeConfig, load
from hasys.model.errors import ConfigRefused, HasysError

_CONFIG = click.option(
    "--config", "path", required=True, type=click.Path(path_type=Path), metavar="FILE",
    help="node.yaml, as 'hasys init' wrote it (or its folder).",
)  # fmt: skip


@click.group()
def node() -> None:
    """The whole node: store, guard and agent, supervised."""


@click.group()
def witness() -> None:
    """A witness: it votes and runs nothing."""


@click.group()
def store() -> None:
    """The store: consensus, API and controllers."""


@click.group()
def agent() -> None:
    """The agent: brings this node's resources to the state that is asked for."""


@click.group()
def guard() -> None:
    """The guard: keeps the node's lease and fences when it is lost."""


@click.group()
def telemetry() -> None:
    """Metrics and traces for others, where node.yaml asks for it: docs/telemetry.md."""


@node.command("run")
@_CONFIG
def node_run(path: Path) -> int:
    """Run the node in the foreground.

    SIGTERM (or Ctrl-C) hands its groups over, then stops; Ctrl-C twice stops at once. When this process is killed the
    node goes on; the next one takes its processes over.
    """
    config = load(path)
    if config.me.role == "Witness":
        raise ConfigRefused(f"{config.path}: {config.name} is a witness: use 'hasys witness run'")
    return _supervise(config)


@node.command("restart-process")
@click.argument("name", metavar="NODE")
@click.argument("role", type=click.Choice(["store", "guard", "agent"]))
@click.option("--reason", default="", metavar="TEXT", help="Kept in the history.")
@context_option
def node_restart_process(name: str, role: str, reason: str) -> None:
    """Restart one of hasys's own processes on NODE. Administrators only; 'hasys describe node NODE' lists them.

    What the groups run is not touched. One that hangs is killed after 5s. While the guard is away its addresses answer
    until the end of its lease; it is back before that on a machine that is not overloaded.
    """
    from hasys.cli.operate import restart_process

    restart_process(name, role, reason)


@witness.command("run")
@_CONFIG
def witness_run(path: Path) -> int:
    """Run the witness in the foreground; SIGTERM or Ctrl-C stops it."""
    config = load(path)
    if config.me.role != "Witness":
        raise ConfigRefused(f"{config.path}: {config.name} is no witness: use 'hasys node run'")
    return _supervise(config)


@node.command("hand-over", hidden=True)
@_CONFIG
def node_hand_over(path: Path) -> None:
    """Give this node's groups away before it stops. Run by 'node run' and by systemd."""
    from hasys.cli.handover import hand_over

    hand_over(load(path))


@store.command("run")
@_CONFIG
def store_run(path: Path) -> None:
    """Run the store process."""
    from hasys.store.main import run

    _serve("store", load(path), run)


@agent.command("run")
@_CONFIG
def agent_run(path: Path) -> None:
    """Run the agent process."""
    from hasys.reconciler.main import run

    _serve("agent", load(path), run)


@guard.command("run")
@_CONFIG
def guard_run(path: Path) -> None:
    """Run the guard process."""
    from hasys.guard.main import run

    _serve("guard", load(path), run)


@telemetry.command("run")
@_CONFIG
def telemetry_run(path: Path) -> None:
    """Run the telemetry process."""
    from hasys.telemetry.main import run

    _serve("telemetry", load(path), run)


def roles_of(config: NodeConfig) -> tuple[str, ...]:
    """The processes of this member, in start order: an observer has no store, a witness has nothing else."""
    store = ("store",) if config.me.votes else ()
    telemetry = ("telemetry",) if config.telemetry is not None else ()
    return (*store, "guard", "agent", *telemetry) if config.me.runs_groups else (*store, *telemetry)


def command_of(config: NodeConfig, *words: str) -> list[str]:
    """The command line of one of our own commands for this node, independent of PATH and of the working directory."""
    return [sys.executable, "-P", "-m", "hasys", *words, "--config", str(config.path)]


def _serve(role: str, config: NodeConfig, run: Callable[[NodeConfig], object]) -> None:
    """Run one process of a node until it is told to stop. Its own faults go to its log in full."""
    from hasys.processes import RoleLock

    RoleLock(config.run_dir, role).take()
    try:
        run(config)
    except HasysError:
        raise
    except KeyboardInterrupt:
        return
    except Exception:
        traceback.print_exc()
        sys.exit(exits.REFUSED)


def _supervise(config: NodeConfig) -> int:
    from hasys.cli.supervisor import Plan, Role, Supervisor

    names = roles_of(config)
    plan = Plan(
        roles=[
            Role(
                name,
                command_of(config, name, "run"),
                urgent=name == "guard",
                vital=name == ("guard" if "guard" in names else "store"),
                longest_wait=longest_wait(config, name),
            )
            for name in names
        ],
        run_dir=config.run_dir,
        log=config.log,
        hand_over=command_of(config, "node", "hand-over") if config.me.runs_groups else (),
        after={"agent": lambda: _kill_what_is_left(config)},
    )
    return Supervisor(plan).run()


def longest_wait(config: NodeConfig, role: str) -> float:
    """Most seconds before a process that ended is started again. It must be back well before others draw conclusions:
    the guard fences when the agent stays away for the grace time, and an address falls silent when the guard does for
    a TTL. The start itself takes its time too, more on a busy machine."""
    timing = config.seed_timing()
    return {"guard": timing.ttl / 5, "agent": timing.agent_grace / 10, "store": 2.0, "telemetry": 30.0}[role]


def _kill_what_is_left(config: NodeConfig) -> None:
    """Processes of groups that nobody took over: the node stops, so they stop, while the guard still has the lease."""
    from hasys.guard import cgroup

    root = cgroup.mount()
    if root is not None:
        with contextlib.suppress(OSError):  # the guard's plan stays: its next start fences what is left
            cgroup.kill(cgroup.base(root, config.instance) / "groups")
