"""Builds and owns the engines and monitors, and knows whether they can answer.

They start side by side; lazy ones at their first use. A watcher asks every engine twice a second,
so that one that dies is seen at once. It knows no HTTP and no strategy's insides.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from decoders.core.judges import same_answer
from engines.base import Engine
from monitors.core import registry as monitor_kinds
from monitors.core.base import Monitor
from monitors.core.order import members, ordered
from monitors.core.registry import Parts
from server import listing, logs, tracing
from server.decorate import Hook, heralded, timed, woken
from server.loading import Loading
from server.readiness import Readiness, State
from server.served import Served
from server.settings import kinds
from server.settings.spec import MonitorSpec, Settings
from server.slot import Slot

MONITORS_EVERY = 2.0
"""Seconds between looks at a monitor, which may be far away."""


class FleetError(Exception):
    """Engines or monitors that must be there did not start; the text names each with its reason."""


class Fleet:
    """All engines and monitors of one server."""

    def __init__(
        self,
        settings: Settings,
        *,
        engines: Mapping[str, Engine] | None = None,
        monitors: Mapping[str, Monitor] | None = None,
        every: float = 0.5,
    ) -> None:
        """Builds what is configured; given ones are taken as they are. Loads nothing.

        `every` is how often an engine is asked whether it can answer, in seconds. Raises
        ValueError for a configuration that a kind refuses.
        """
        self.settings = settings
        self._created = int(time.time())
        self._hook: Hook | None = None
        self._served: dict[str, Served] = {}
        self._loading = Loading()
        self._engines = self._engine_slots(engines or {}, every)
        self.engines: Mapping[str, Engine] = {n: s.unit for n, s in self._engines.items()}
        self._monitors = self._monitor_slots(monitors or {})
        self.monitors: Mapping[str, Monitor] = {n: s.unit for n, s in self._monitors.items()}

    def _engine_slots(self, given: Mapping[str, Engine], every: float) -> dict[str, Slot[Engine]]:
        slots = {}
        for name, spec in self.settings.engines.items():
            engine = given.get(name) or kinds.build_engine(name, spec)
            slots[name] = Slot(engine, lazy=spec.lazy, every=every)
        more = {name: Slot(e, every=every) for name, e in given.items() if name not in slots}
        return slots | more

    def _monitor_slots(self, given: Mapping[str, Monitor]) -> dict[str, Slot[Monitor]]:
        specs = {name: MonitorSpec(kind=monitor.kind) for name, monitor in given.items()}
        specs |= self.settings.monitors
        wanted = {name: members(spec.own()) for name, spec in specs.items()}
        slots: dict[str, Slot[Monitor]] = {}
        for name in ordered(wanted):
            slots[name] = self._monitor_slot(given.get(name), name, specs[name], slots)
        return {name: slots[name] for name in specs}

    def _monitor_slot(
        self,
        given: Monitor | None,
        name: str,
        spec: MonitorSpec,
        built: Mapping[str, Slot[Monitor]],
    ) -> Slot[Monitor]:
        """Starts after the engine that serves it and after its members, unless those are lazy."""
        monitor = given or self._built(name, spec, {n: s.unit for n, s in built.items()})
        served_by = self._engines.get(str(spec.own().get("engine")))
        first = [served_by.start] if served_by else []
        first += [built[n].start for n in members(spec.own()) if not built[n].lazy]
        slot = Slot(monitor, lazy=spec.lazy, first=first, every=MONITORS_EVERY)
        timed(monitor, lambda: self._hook)
        heralded(monitor)
        if spec.lazy:
            woken(monitor, slot)
        return slot

    def _built(self, name: str, spec: MonitorSpec, built: Mapping[str, Monitor]) -> Monitor:
        own = kinds.taken(kinds.monitor_spec(spec.kind), spec.own())
        try:
            return monitor_kinds.build(name, own, Parts(self.engines, built, same_answer))
        except ValueError as fault:
            raise ValueError(f"monitors.{name}: {fault}") from fault

    @property
    def strictness(self) -> Mapping[str, str]:
        """`on_monitor_error` of every configured monitor."""
        return {name: s.on_monitor_error for name, s in self.settings.monitors.items()}

    def watch_monitors(self, hook: Hook) -> None:
        """Tells `hook` of every monitor call from now on."""
        self._hook = hook

    def _slots(self) -> list[Slot[Engine] | Slot[Monitor]]:
        return [*self._engines.values(), *self._monitors.values()]

    async def start(self) -> None:
        """Starts all but the lazy ones; raises FleetError after stopping what had started."""
        if tracing.enabled():
            tracing.follow(self.engines, self.monitors)
        eager = [slot for slot in self._slots() if not slot.lazy]
        try:
            outcomes = await asyncio.gather(*(s.start() for s in eager), return_exceptions=True)
        except asyncio.CancelledError:
            await self.stop()
            raise
        failed = [f"{s.name}: {o}" for s, o in zip(eager, outcomes, strict=True) if o is not None]
        if failed:
            await self.stop()
            raise FleetError("could not start " + "; ".join(failed))

    async def stop(self) -> None:
        """Stops everything that was started; one that fails to stop does not keep the others."""
        slots = self._slots()
        outcomes = await asyncio.gather(*(s.stop() for s in slots), return_exceptions=True)
        for slot, outcome in zip(slots, outcomes, strict=True):
            if isinstance(outcome, Exception):
                logs.log("fleet").error("did not stop", unit=slot.name, reason=str(outcome))

    def resolve(self, model_id: str) -> Served:
        """The model behind a (virtual) id; RequestError `model_not_found` if there is none."""
        served = self._served.get(model_id)
        if served is None:
            served = listing.resolved(model_id, self.settings.models, self.engines)
            self._served[model_id] = served
        return served

    async def serve(self, model_id: str, deadline: float | None = None) -> Served:
        """The same with its engine ready, started now if it is lazy.

        Raises EngineDeadError if it is down, EngineBusyError while the server starts it, and
        LimitError 503 if `deadline`, on the event loop's clock, passes or the server drains.
        """
        served = self.resolve(model_id)
        if not self.up(model_id):
            await self._loading.wait(self._slot(served).wake, deadline)
        return served

    def drain(self) -> None:
        """Refuses what waits for an engine, and what will; those that are up stay so."""
        self._loading.end()

    def up(self, model_id: str) -> bool:
        """Whether the model's engine can answer now."""
        return self._slot(self.resolve(model_id)).state is State.READY

    def _slot(self, served: Served) -> Slot[Engine]:
        return self._engines[self.settings.models[served.base].engine]

    def ready(self) -> Readiness:
        """Who can answer now."""
        reasons = [s.why for s in self._slots() if not s.lazy and s.state is not State.READY]
        return Readiness(
            {name: slot.state for name, slot in self._engines.items()},
            {name: slot.state for name, slot in self._monitors.items()},
            reasons,
        )

    def listing(self) -> list[dict[str, Any]]:
        """Every id and virtual id as `/v1/models` lists them."""
        models = self.settings.models
        found = (
            model_id
            for name, spec in models.items()
            for model_id in listing.ids(name, spec, self.engines[spec.engine])
        )
        return [self.card(model_id) for model_id in dict.fromkeys(found)]

    def card(self, model_id: str) -> dict[str, Any]:
        """One of them; RequestError `model_not_found`, also for what its engine cannot do."""
        served = self.resolve(model_id)
        virtual = served.id != served.base
        if virtual and not listing.able(served.engine, served.chosen.strategy):
            raise listing.unknown(model_id)
        spec = self.settings.models[served.base]
        return listing.card(served, spec, self.settings.engines.get(spec.engine), self._created)
