"""What can be wrong between sections: names that name nothing, parameters a strategy refuses.

Works on settings whose shape is right and reports every problem with its place.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from decoders.core import registry as strategies
from engines.base import Capability
from monitors.core.order import cycle, members
from server.settings import kinds
from server.settings.marks import Place
from server.settings.shape import FILLERS, UNNAMED, Problem, explained, nearest
from server.settings.spec import EngineSpec, KeySpec, ModelSpec, MonitorSpec, Settings, StrategySpec

JUDGES = ("monitor", "weights", "target", "primary", "constrained")
"""Parameters of strategies that name a monitor, or several."""


@dataclass(frozen=True, slots=True)
class Around:
    """What a model's strategies may name and need; `able` is None where its engine is unknown."""

    monitors: list[str]
    models: list[str]
    able: frozenset[Capability] | None


def problems(settings: Settings, raw: Mapping[str, Any]) -> Iterator[Problem]:
    """All of them. `raw` tells what was named, also where it did not fit."""
    engines, monitors = _names(raw, "engines"), _names(raw, "monitors")
    for name, engine in settings.engines.items():
        yield from _engine(("engines", name), engine)
    able = {name: kinds.capabilities(engine) for name, engine in settings.engines.items()}
    pooling = [name for name, engine in settings.engines.items() if kinds.pools(engine)]
    for name, monitor in settings.monitors.items():
        yield from _monitor(("monitors", name), monitor, engines)
    yield from _members(settings.monitors, monitors)
    if not _names(raw, "models"):
        yield ("models",), "there must be at least one model"
    for name, model in settings.models.items():
        around = Around(monitors, _names(raw, "models"), able.get(model.engine))
        yield from _model(("models", name), model, engines, around)
        if model.engine in pooling:
            reason = f"{model.engine!r} classifies (runner: pooling) and serves monitors only"
            yield ("models", name, "engine"), reason
    presets = [name for model in settings.models.values() for name in model.presets]
    for name, key in settings.keys.items():
        yield from _key(("keys", name), key, presets, [*_names(raw, "models"), *monitors])
    yield from _same_hash(settings)


def _names(raw: Mapping[str, Any], section: str) -> list[str]:
    found = raw.get(section)
    return [str(name) for name in found] if isinstance(found, Mapping) else []


def _engine(place: Place, spec: EngineSpec) -> Iterator[Problem]:
    if spec.kind == UNNAMED:
        return
    if spec.kind not in kinds.engine_kinds():
        near = nearest(spec.kind, kinds.engine_kinds())
        yield (*place, "kind"), f"there is no kind of engine {spec.kind!r}{near}"
        return
    yield from _held(place, kinds.engine_spec(spec.kind), spec.own())


def _monitor(place: Place, spec: MonitorSpec, engines: list[str]) -> Iterator[Problem]:
    if spec.kind == UNNAMED:
        return
    if spec.kind not in kinds.monitor_kinds():
        near = nearest(spec.kind, kinds.monitor_kinds())
        yield (*place, "kind"), f"there is no kind of monitor {spec.kind!r}{near}"
        return
    yield from _held(place, kinds.monitor_spec(spec.kind), spec.own())
    engine = spec.own().get("engine")
    if isinstance(engine, str) and engine not in engines:
        yield (*place, "engine"), f"there is no engine {engine!r}{nearest(engine, engines)}"


def _members(specs: Mapping[str, MonitorSpec], monitors: list[str]) -> Iterator[Problem]:
    """Monitors that are made of others: each must be there, and none made of itself."""
    wanted = {name: members(spec.own()) for name, spec in specs.items()}
    for name, others in wanted.items():
        for i, other in enumerate(others):
            if other not in monitors:
                near = nearest(other, monitors)
                yield ("monitors", name, "members", i), f"there is no monitor {other!r}{near}"
    if path := cycle(wanted):
        yield ("monitors", path[0], "members"), f"made of itself: {' -> '.join(path)}"


def _held(place: Place, model: Any, own: Mapping[str, Any]) -> Iterator[Problem]:
    if model is None:
        return
    try:
        model.model_validate(kinds.taken(model, own))
    except ValidationError as fault:
        yield from explained(fault, model, place)


def _model(place: Place, spec: ModelSpec, engines: list[str], around: Around) -> Iterator[Problem]:
    if spec.engine not in (*engines, UNNAMED):
        yield (
            (*place, "engine"),
            f"there is no engine {spec.engine!r}{nearest(spec.engine, engines)}",
        )
    if spec.default is not None:
        yield from _strategy((*place, "default"), spec.default, around)
    for name, preset in spec.presets.items():
        if "@" in name or not name.strip():
            yield (*place, "presets", name), "a preset's name must not be empty or hold '@'"
        if name in strategies.names():
            yield (*place, "presets", name), "a preset must not be called as a strategy is"
        yield from _strategy((*place, "presets", name), preset, around)


def _strategy(place: Place, spec: StrategySpec, around: Around) -> Iterator[Problem]:
    known = list(strategies.names())
    if spec.strategy == UNNAMED:
        return
    if spec.strategy not in known:
        near = nearest(spec.strategy, known)
        yield (*place, "strategy"), f"there is no strategy {spec.strategy!r}{near}"
        return
    strategy = strategies.find(spec.strategy)
    lacking = set() if around.able is None else strategy.requires - around.able
    if lacking:
        needs = ", ".join(sorted(lacking))
        yield (*place, "strategy"), f"the model's engine cannot do {spec.strategy!r}: lacks {needs}"
    place = (*place, "params")
    try:
        strategy.options.model_validate(spec.params)
    except ValidationError as fault:
        yield from explained(fault, strategy.options, place)
    if spec.params.get("utility") != "implicit":  # then judges are rewards of the ensemble
        for param in JUDGES:
            yield from _there((*place, param), spec.params.get(param), "monitor", around.monitors)
    if "models" in strategy.options.model_fields:
        yield from _there((*place, "models"), spec.params.get("models"), "model", around.models)
    if "path" in strategy.options.model_fields:
        yield from _path((*place, "path"), spec.params.get("path"), around)


def _there(place: Place, given: Any, what: str, known: list[str]) -> Iterator[Problem]:
    """A name, or each of a list, is that of something."""
    if isinstance(given, list):
        for i, one in enumerate(given):
            yield from _there((*place, i), one, what, known)
    elif isinstance(given, str) and given not in known:
        yield place, f"there is no {what} {given!r}{nearest(given, known)}"


def _path(place: Place, given: Any, around: Around) -> Iterator[Problem]:
    """A strategy inside another one."""
    try:
        spec = StrategySpec.model_validate(given)
    except ValidationError:
        return
    yield from _strategy(place, spec, around)


def _key(place: Place, spec: KeySpec, presets: list[str], models: list[str]) -> Iterator[Problem]:
    for field, allowed, known in (
        ("strategies", spec.strategies, list(strategies.names())),
        ("presets", spec.presets, presets),
        ("models", spec.models, models),
    ):
        for i, name in enumerate(allowed or ()):
            if name not in known:
                near = nearest(name, known)
                yield (*place, field, i), f"{name!r} is none of the {field}{near}"


def _same_hash(settings: Settings) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for name, key in settings.keys.items():
        if key.hash in first and key.hash != FILLERS["hash"]:
            yield ("keys", name, "hash"), f"is the same key as {first[key.hash]!r}"
        first.setdefault(key.hash, name)
