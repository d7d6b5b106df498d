"""Runs an agent of Debian's fence-agents package, or one that speaks like them, against the device of a lost node.

The protocol (FenceAgentAPI.md of ClusterLabs/fence-agents): options as lines ``name=value`` on standard input, then its
end; ``action`` is one of them; exit status 0 says done. For ``status``, 0 says on and 2 says off. Secrets come from a
file of this node and are seen on standard input alone: no command line, no environment, no log carries them.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anyio

from hasys.files import refuse_exposed
from hasys.model.errors import ConfigRefused
from hasys.model.lines import one_line
from hasys.v1 import objects_pb2 as pb

ATTEMPTS = 3
"""How often it is tried."""
PAUSE = 2.0
"""Seconds between attempts."""
TIMEOUT = 60.0
"""Seconds; the schema's default of ``FencingSpec.timeout``."""
FOLDERS = ("/usr/sbin", "/usr/bin", "/usr/local/sbin")
"""Where agents are looked for."""
_MOST_SECRETS = 64 * 1024
_SHOWN = 300


class Failed(Exception):
    """Not fenced; one line for people."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How one run of the agent ended."""

    code: int
    said: str


async def fence(spec: pb.FencingSpec, clock: Callable[[], float] = time.monotonic) -> str:
    """Switch the node off, or off and on again; returns what was done, with the time of each step in seconds. Raises
    :class:`Failed` when every attempt was in vain, naming the last reason."""
    program = find(spec.agent)
    options = dict(spec.options)
    if spec.secret_file:
        options |= await anyio.to_thread.run_sync(secrets, Path(spec.secret_file))
    action = pb.FencingSpec.Action.Name(spec.action).lower()
    timeout = spec.timeout.ToNanoseconds() / 1e9 if spec.HasField("timeout") else TIMEOUT
    why = ""
    for attempt in range(1, ATTEMPTS + 1):
        begun = clock()
        answer = await run(program, {**options, "action": action}, timeout)
        if answer.code == 0:
            steps = [f"{action} {clock() - begun:.1f} s"]
            if action == "off":
                begun = clock()
                await _confirmed(program, options, timeout)
                steps.append(f"status {clock() - begun:.1f} s")
            return f"{spec.agent}: {', '.join(steps)}" + (f", attempt {attempt}" if attempt > 1 else "")
        why = f"{spec.agent} {action}: exit status {answer.code}" + (f": {answer.said}" if answer.said else "")
        if attempt < ATTEMPTS:
            await anyio.sleep(PAUSE)
    raise Failed(f"{why} ({ATTEMPTS} attempts)")


async def _confirmed(program: str, options: dict[str, str], timeout: float) -> None:
    """An agent that says that the power is on has not switched it off; one that cannot tell is believed."""
    if (await run(program, {**options, "action": "status"}, timeout)).code == 0:
        raise Failed(f"{program}: off succeeded, and yet the power is on")


async def run(program: str, options: dict[str, str], timeout: float) -> Answer:
    """One run of an agent. Its own time is up with ``timeout`` seconds: it is killed then. Raises :class:`Failed`."""
    lines = "".join(f"{name}={value}\n" for name, value in options.items())
    try:
        with anyio.fail_after(timeout):
            ended = await anyio.run_process(
                [program], input=lines.encode(), check=False, stderr=subprocess.STDOUT, start_new_session=True
            )
    except TimeoutError:
        return Answer(124, f"no answer within {timeout:g} s")
    except OSError as e:
        raise Failed(f"{program}: {e.strerror}") from None
    said = ended.stdout.decode("utf-8", "replace").strip()
    return Answer(ended.returncode, _hidden(one_line(said[-_SHOWN:]), options))


def _hidden(text: str, options: dict[str, str]) -> str:
    """Without any secret that the agent repeats."""
    for name, value in options.items():
        if len(value) > 2 and any(word in name for word in ("passw", "secret", "token", "community")):
            text = text.replace(value, "***")
    return text


def find(agent: str) -> str:
    """Path of the agent. Raises :class:`Failed`."""
    if agent.startswith("/"):
        return agent
    for folder in FOLDERS:
        if (Path(folder) / agent).is_file():
            return f"{folder}/{agent}"
    raise Failed(f"{agent} is not installed here: apt-get install fence-agents")


def secrets(path: Path) -> dict[str, str]:
    """The lines ``name=value`` of a file that root alone may read. Raises :class:`Failed`."""
    try:
        refuse_exposed(path)
        with path.open(encoding="utf-8") as file:
            lines = file.read(_MOST_SECRETS).splitlines()
    except OSError as e:
        raise Failed(f"{path}: {e.strerror}") from None
    except (ConfigRefused, UnicodeDecodeError) as e:
        raise Failed(str(e)) from None
    found = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().partition("=")
        if name and not name.startswith("#"):
            if not equals or name == "action":
                raise Failed(f"{path}:{number}: expected a line like password=..., and no action")
            found[name] = value
    return found
