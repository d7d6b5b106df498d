"""Application: a program that runs while this node has the group. Restarted in place before a failover."""

from __future__ import annotations

from dataclasses import replace

from hasys.resources import settings
from hasys.resources.port import Surroundings
from hasys.resources.service import Foreground, Home, Scripted, Service
from hasys.resources.supervised import Supervised, programs_of
from hasys.v1 import objects_pb2


class Application(Supervised):
    """See the module."""

    kind = "Application"

    def __init__(self, around: Surroundings, spec: objects_pb2.ApplicationSpec, home: Home) -> None:
        service: Service
        if spec.HasField("run"):
            home = replace(home, programs=programs_of(objects_pb2.ApplicationSpec(run=spec.run)))
            service = Foreground(home, spec.run)
        else:
            programs = objects_pb2.ApplicationSpec(start=spec.start, stop=spec.stop, status=spec.status)
            service = Scripted(
                replace(home, programs=programs_of(programs)),
                spec.start,
                spec.stop if spec.HasField("stop") else None,
                spec.status if spec.HasField("status") else None,
                settings.seconds(spec, "check_interval"),
            )
        super().__init__(around, service, spec.restart)
