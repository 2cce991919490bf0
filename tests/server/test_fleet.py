"""Engines start side by side or at first use, their death is seen, and ids find their models."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from decoders.core.base import LimitError, RequestError
from engines.base import BoundaryError, EngineBusyError, EngineDeadError
from engines.table import Spec as TableSpec
from engines.table import TableEngine
from monitors.core.base import MonitorError, Stage
from server.fleet import Fleet, FleetError
from server.readiness import State
from server.served import Served
from server.settings import Settings
from tests.fakes.monitors import Told
from tests.fakes.requests import SINGLE
from tests.waiting import until

Made = Callable[..., Fleet]


class Slow(TableEngine):
    """A table that takes its time to start, counts its starts and may fail the first ones."""

    starting = 0
    most = 0

    def __init__(self, name: str, failures: int = 0, seconds: float = 0.05) -> None:
        super().__init__(name, TableSpec())
        self.starts = 0
        self.stops = 0
        self._failures = failures
        self._seconds = seconds

    async def start(self) -> None:
        self.starts += 1
        Slow.starting += 1
        Slow.most = max(Slow.most, Slow.starting)
        await asyncio.sleep(self._seconds)
        Slow.starting -= 1
        if self.starts <= self._failures:
            raise ValueError("no weights here")
        await super().start()

    async def stop(self) -> None:
        self.stops += 1
        await super().stop()


@asynccontextmanager
async def running(fleet: Fleet) -> AsyncIterator[Fleet]:
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.stop()


async def test_engines_start_side_by_side(settings: Settings, fleet_of: Made) -> None:
    Slow.most = 0
    many = {name: Slow(name) for name in ("a", "c", "d", "e")}
    async with running(fleet_of(settings, engines=many)) as fleet:
        assert Slow.most == 4
        assert fleet.ready().ready
        assert fleet.ready().cold == ["b"]
    assert [engine.stops for engine in many.values()] == [1, 1, 1, 1]


async def test_one_that_cannot_start_is_named_and_the_others_are_stopped(
    settings: Settings, fleet_of: Made
) -> None:
    good, bad = Slow("c"), Slow("d", failures=9)
    fleet = fleet_of(settings, engines={"c": good, "d": bad})
    with pytest.raises(FleetError, match="d: no weights here"):
        await fleet.start()
    assert good.stops == 1
    assert not fleet.ready().ready


async def test_a_lazy_engine_starts_once_at_its_first_use(
    settings: Settings, fleet_of: Made
) -> None:
    lazy = Slow("b")
    async with running(fleet_of(settings, engines={"b": lazy})) as fleet:
        assert fleet.ready().as_dict()["engines"] == {"a": "ready", "b": "cold"}
        served = await asyncio.gather(*(fleet.serve("org/slow@v1") for _ in range(20)))
        assert lazy.starts == 1
        assert {one.engine for one in served} == {lazy}
        assert fleet.ready().cold == []


async def test_who_leaves_does_not_take_the_start_along(settings: Settings, fleet_of: Made) -> None:
    lazy = Slow("b")
    async with running(fleet_of(settings, engines={"b": lazy})) as fleet:
        first, second = (asyncio.create_task(fleet.serve("org/slow@v1")) for _ in range(2))
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await second).engine is lazy
        assert lazy.starts == 1


async def test_a_failed_lazy_start_is_a_boundary_fault_and_not_tried_by_everyone(
    settings: Settings, fleet_of: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    lazy = Slow("b", failures=1)
    async with running(fleet_of(settings, engines={"b": lazy})) as fleet:
        for _ in range(3):
            with pytest.raises(EngineDeadError, match="no weights here"):
                await fleet.serve("org/slow@v1")
        assert lazy.starts == 1
        assert fleet.ready().as_dict()["engines"] == {"a": "ready", "b": "down"}
        assert fleet.ready().ready, "lazy ones do not count"
        monkeypatch.setattr("server.slot.AGAIN", 0.0)
        await fleet.serve("org/slow@v1")
        assert fleet.ready().engines["b"] is State.READY


class Held(TableEngine):
    """A table that loads until it is let go."""

    def __init__(self, name: str) -> None:
        super().__init__(name, TableSpec())
        self.starts, self.go = 0, asyncio.Event()

    async def start(self) -> None:
        self.starts += 1
        await self.go.wait()
        await super().start()


@asynccontextmanager
async def loading(
    settings: Settings, fleet_of: Made
) -> AsyncIterator[tuple[Fleet, Held, asyncio.Task[Served]]]:
    """A fleet, its lazy engine, and a task that waits for it."""
    lazy = Held("b")
    async with running(fleet_of(settings, engines={"b": lazy})) as fleet:
        yield fleet, lazy, asyncio.create_task(fleet.serve("org/slow@v1"))


async def test_a_lazy_engine_that_loads_leaves_the_server_ready(
    settings: Settings, fleet_of: Made
) -> None:
    async with loading(settings, fleet_of) as (fleet, lazy, waiting):
        await until(lambda: lazy.starts == 1)
        now = fleet.ready()
        assert (now.engines["b"], now.ready, list(now.reasons)) == (State.STARTING, True, [])
        lazy.go.set()
        assert (await waiting).engine is lazy


async def test_nobody_waits_for_a_load_past_the_deadline(
    settings: Settings, fleet_of: Made
) -> None:
    async with loading(settings, fleet_of) as (fleet, lazy, patient):
        for due in (asyncio.get_running_loop().time() + 0.02, 0.0):
            with pytest.raises(LimitError, match="deadline"):
                await fleet.serve("org/slow@v1", due)
        lazy.go.set()
        assert (await patient).engine is lazy, "the load went on"
        assert (await fleet.serve("org/slow@v1", 0.0)).engine is lazy
        assert lazy.starts == 1


async def test_a_drain_sends_away_who_waits_for_a_load(settings: Settings, fleet_of: Made) -> None:
    lazy = Held("b")
    async with running(fleet_of(settings, engines={"b": lazy})) as fleet:
        waiting = [asyncio.create_task(fleet.serve("org/slow@v1")) for _ in range(2)]
        await until(lambda: lazy.starts == 1)
        fleet.drain()
        for one in (*waiting, fleet.serve("org/slow@v1")):
            with pytest.raises(LimitError, match="shutting down"):
                await one
        assert (await fleet.serve("mini")).engine is fleet.engines["a"]


async def test_a_dead_engine_is_seen_within_half_a_second(
    settings: Settings, fleet_of: Made
) -> None:
    async with running(Fleet(settings)) as fleet:
        engine = fleet.engines["a"]
        await fleet.serve("mini")
        await engine.stop()
        before = asyncio.get_running_loop().time()
        await until(lambda: not fleet.ready().ready)
        assert asyncio.get_running_loop().time() - before < 0.7
        assert fleet.ready().engines["a"] is State.DOWN
        with pytest.raises(EngineDeadError):
            await fleet.serve("mini")
        await engine.start()
        await until(lambda: fleet.ready().ready)


async def test_a_check_that_hangs_counts_as_down(
    settings: Settings, fleet_of: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.slot.SILENCE", 0.02)
    async with running(fleet_of(settings)) as fleet:
        monkeypatch.setattr(fleet.engines["a"], "check", lambda: asyncio.sleep(9))
        await until(lambda: not fleet.ready().ready)
        assert "does not answer" in fleet.ready().reasons[0]


async def test_a_busy_engine_is_still_ready(
    settings: Settings, fleet_of: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def busy() -> None:
        nonlocal looks
        looks += 1
        raise EngineBusyError("full")

    async with running(fleet_of(settings)) as fleet:
        monkeypatch.setattr(fleet.engines["a"], "check", busy)
        await until(lambda: looks > 2)
        assert fleet.ready().ready


async def test_before_the_start_a_request_may_come_again(
    settings: Settings, fleet_of: Made
) -> None:
    with pytest.raises(EngineBusyError):
        await fleet_of(settings).serve("mini")


@pytest.mark.parametrize(
    ("model_id", "base", "strategy", "params", "preset"),
    [
        ("mini", "mini", "plain", {}, None),
        ("mini@best_of_n", "mini", "best_of_n", {}, None),
        ("mini@vote-4", "mini", "parallel_thinking", {"paths": 4}, "vote-4"),
        ("org/slow@v1", "org/slow@v1", "best_of_n", {}, None),
        ("org/slow@v1@plain", "org/slow@v1", "plain", {}, None),
    ],
)
def test_ids_find_their_models(
    settings: Settings,
    fleet_of: Made,
    model_id: str,
    base: str,
    strategy: str,
    params: dict[str, Any],
    preset: str | None,
) -> None:
    served = fleet_of(settings).resolve(model_id)
    chosen = served.choose()
    assert (served.id, served.base) == (model_id, base)
    assert (chosen.strategy, dict(chosen.params), chosen.preset) == (strategy, params, preset)


@pytest.mark.parametrize(
    "model_id", ["", "@", "mini@", "@plain", "mini@none", "mini@vote-4@plain", "org/slow", "Mini"]
)
def test_other_ids_find_nothing(settings: Settings, fleet_of: Made, model_id: str) -> None:
    fleet = fleet_of(settings)
    for ask in (fleet.resolve, fleet.card):
        with pytest.raises(RequestError) as fault:
            ask(model_id)
        assert (fault.value.code, fault.value.param) == ("model_not_found", "model")


async def test_markers_have_token_ids(settings: Settings, fleet_of: Made) -> None:
    async with running(fleet_of(settings)) as fleet:
        think = (await fleet.serve("mini@plain")).think
        assert think is not None
        tokenizer = fleet.engines["a"].tokenizer
        both = (think.open_ids, think.close_ids)
        texts = [tokenizer.decode(ids, skip_special=False) for ids in both]
        assert texts == ["<think>", "</think>"]
        assert (await fleet.serve("org/slow@v1")).think is None


def test_the_listing_holds_every_id_that_can_be_asked_for(
    settings: Settings, fleet_of: Made
) -> None:
    fleet = fleet_of(settings)
    ids = [card["id"] for card in fleet.listing()]
    assert len(ids) == len(set(ids)) == 2 * (1 + len(SINGLE)) + 1
    assert {"mini", "mini@plain", "mini@vote-4", "org/slow@v1@best_of_n"} <= set(ids)
    for card in fleet.listing():
        assert card == fleet.card(card["id"])
        assert card["object"] == "model"
        assert card["max_model_len"] == 4096
        assert isinstance(card["created"], int)


def test_what_an_engine_cannot_do_is_not_listed(settings: Settings, fleet_of: Made) -> None:
    mute = Slow("a")
    mute.capabilities = frozenset()
    fleet = fleet_of(settings, engines={"a": mute})
    assert [c["id"] for c in fleet.listing() if c["root"] == "mini"] == ["mini"]
    with pytest.raises(RequestError):
        fleet.card("mini@plain")
    assert any(c["root"] == "org/slow@v1" for c in fleet.listing())


def test_an_ensemble_is_listed_with_its_members(fleet_of: Made) -> None:
    spec = {"kind": "table", "members": {"helpful": "./x", "harmless": "./y"}}
    settings = Settings.model_validate(
        {"engines": {"e": spec}, "models": {"both": {"engine": "e"}}}
    )
    card = fleet_of(settings, engines={"e": Slow("e")}).card("both")
    assert card["members"] == ["helpful", "harmless"]


async def test_monitor_calls_are_told_with_their_time(settings: Settings, fleet_of: Made) -> None:
    told: list[tuple[str, str]] = []
    async with running(fleet_of(settings)) as fleet:
        fleet.watch_monitors(lambda call: told.append((call.name, call.result)))
        score = await fleet.monitors["seven"].score([], ["the answer is 7.0"], Stage.ANSWER)
        assert score.value == 1.0, "answers are compared in canonical form"
    assert told == [("seven", "ok")]


async def test_a_monitor_waits_for_the_engine_that_serves_it(fleet_of: Made) -> None:
    """Its engine is started with it, even a lazy one."""
    settings = Settings.model_validate(
        {
            "engines": {"guard": {"kind": "table", "lazy": True}},
            "monitors": {"m": {"kind": "verifier", "engine": "guard"}},
            "models": {"x": {"engine": "guard"}},
        }
    )
    from monitors.verifier import Verifier

    engine = Slow("guard")
    seen: list[int] = []

    class Looking(Verifier):
        async def start(self) -> None:
            await engine.check()
            seen.append(engine.starts)

    monitors = {"m": Looking("m", lambda _: True)}
    async with running(fleet_of(settings, engines={"guard": engine}, monitors=monitors)) as fleet:
        assert seen == [1]
        assert fleet.ready().cold == []


async def test_a_lazy_monitor_starts_at_its_first_call(fleet_of: Made) -> None:
    settings = Settings.model_validate(
        {
            "engines": {"a": {"kind": "table"}},
            "monitors": {"m": {"kind": "verifier", "lazy": True}},
            "models": {"x": {"engine": "a"}},
        }
    )
    from monitors.verifier import Verifier

    starts = 0

    class Broken(Verifier):
        async def start(self) -> None:
            nonlocal starts
            starts += 1
            if starts > 1:
                raise MonitorError("not twice")

    async with running(fleet_of(settings, monitors={"m": Broken("m", bool)})) as fleet:
        assert fleet.ready().cold == ["m"]
        for _ in range(2):
            await fleet.monitors["m"].score([], ["x"], Stage.ANSWER)
        assert starts == 1
        assert fleet.ready().monitors["m"] is State.READY


def test_faults_of_a_monitor_or_engine_are_boundary_faults() -> None:
    assert issubclass(MonitorError, BoundaryError)
    assert issubclass(EngineDeadError, BoundaryError)


class Late(Told):
    """Takes its time to start and notes when it has."""

    def __init__(self, name: str, started: list[str]) -> None:
        super().__init__()
        self.name, self._started = name, started

    async def start(self) -> None:
        await asyncio.sleep(0.02)
        self._started.append(self.name)


def made_of(**members: list[str]) -> Settings:
    monitors = {name: {"kind": "verifier", "members": m} for name, m in members.items()}
    return Settings.model_validate({"monitors": monitors})


async def test_a_monitor_starts_after_its_members(fleet_of: Made) -> None:
    started: list[str] = []
    settings = made_of(both=["deep", "a"], deep=["a"], a=[])
    given = {name: Late(name, started) for name in ("both", "deep", "a")}
    async with running(fleet_of(settings, monitors=given)) as fleet:
        assert list(fleet.monitors) == ["both", "deep", "a"]
    assert started == ["a", "deep", "both"]


def test_members_that_cannot_be_built_are_named(fleet_of: Made) -> None:
    with pytest.raises(ValueError, match=r"monitors\.both\.members: there is no monitor 'c'"):
        fleet_of(made_of(both=["c"]))
    with pytest.raises(ValueError, match=r"monitors\.\w\.members: made of itself"):
        fleet_of(made_of(a=["b"], b=["a"]))


class Unloaded(Told):
    """Can answer once it is started."""

    loaded = False

    async def start(self) -> None:
        self.loaded = True

    async def check(self) -> None:
        if not self.loaded:
            raise MonitorError("not loaded")


async def test_an_ensemble_can_answer_while_a_lazy_member_is_cold(fleet_of: Made) -> None:
    settings = Settings.model_validate(
        {
            "monitors": {
                "late": {"kind": "verifier", "lazy": True},
                "here": {"kind": "verifier"},
                "both": {"kind": "ensemble", "members": ["late", "here"]},
            }
        }
    )
    late, here = Unloaded(), Unloaded()
    late.name, here.name = "late", "here"
    async with running(fleet_of(settings, monitors={"late": late, "here": here})) as fleet:
        both = fleet.monitors["both"]
        await both.check()
        assert not late.loaded
        await both.score([], ["x"], Stage.ANSWER)
        assert late.loaded
        await both.check()
        late.loaded = False
        with pytest.raises(MonitorError, match="not loaded"):
            await both.check()


async def test_a_warning_at_the_start_is_logged_and_stops_nothing(fleet_of: Made) -> None:
    monitor = Late("a", [])
    monitor.warnings = ["rewards the null answer ':'"]
    fleet = fleet_of(made_of(a=[]), monitors={"a": monitor})
    with capture_logs() as lines:
        async with running(fleet):
            assert fleet.ready().ready
    assert [line["reason"] for line in lines if line["log_level"] == "warning"] == monitor.warnings
