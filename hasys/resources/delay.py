"""Delay: a step of the flow that only takes time. Once per epoch: an agent that restarts does not wait again."""

from __future__ import annotations

import anyio

from hasys.resources import settings
from hasys.resources.port import Driver, State, Surroundings, Trace
from hasys.resources.records import Records
from hasys.v1 import objects_pb2


class Delay(Driver):
    """See the module."""

    kind = "Delay"

    def __init__(self, around: Surroundings, spec: objects_pb2.DelaySpec, records: Records) -> None:
        super().__init__(around)
        self._seconds = settings.seconds(spec, "duration")
        self._records = records

    def traces(self) -> tuple[Trace, ...]:
        return ()

    async def adopt(self) -> bool:
        place = self.around.place
        record = self._records.read(place.group, place.name)
        return record is not None and record.get("epoch") == place.epoch

    async def run(self) -> None:
        place = self.around.place
        if not await self.adopt():
            self.become(State.STARTING)
            await anyio.sleep(self._seconds)
            self._records.write(place.group, place.name, {"epoch": place.epoch})
        self.become(State.RUNNING)
        await anyio.sleep_forever()

    def continues(self, earlier: Driver) -> bool:
        return isinstance(earlier, Delay)  # what has elapsed has elapsed

    def take_over(self, earlier: Driver) -> None:
        super().take_over(earlier)
        if self.condition.state is State.RUNNING:
            self._records.write(self.around.place.group, self.around.place.name, {"epoch": self.around.place.epoch})

    async def stop(self, *, force: bool) -> None:
        self._records.forget(self.around.place.group, self.around.place.name)
