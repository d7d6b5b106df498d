"""Database: started, stopped in order and asked by commands. An Application with the settings that a database needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hasys.resources import settings
from hasys.resources.port import Surroundings
from hasys.resources.service import Home, Scripted
from hasys.resources.supervised import Supervised, programs_of
from hasys.v1 import objects_pb2


class Database(Supervised):
    """See the module."""

    kind = "Database"

    def __init__(self, around: Surroundings, spec: objects_pb2.DatabaseSpec, home: Home) -> None:
        start, stop, status = (_script(spec, word) for word in ("start", "stop", "status"))
        programs = programs_of(objects_pb2.ApplicationSpec(start=start, stop=stop, status=status))
        service = Scripted(
            replace(home, programs=programs),
            start,
            stop,
            status if spec.status else None,
            settings.seconds(spec, "check_interval"),
        )
        super().__init__(around, service, spec.restart)


def _script(spec: objects_pb2.DatabaseSpec, word: str) -> objects_pb2.Script:
    """One of the three, with what they have in common."""
    command: Sequence[str] = getattr(spec, word)
    script = objects_pb2.Script(
        command=command, user=spec.user, working_directory=spec.working_directory, env=dict(spec.env)
    )
    script.timeout.FromNanoseconds(int(settings.seconds(spec, f"{word}_timeout") * 1e9))
    return script
