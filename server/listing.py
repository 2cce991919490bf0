"""The ids that clients can name and what `/v1/models` says of them. It knows no engine's state."""

from collections.abc import Iterator, Mapping
from typing import Any

from decoders.core import registry as strategies
from decoders.core.base import RequestError
from engines.base import Capability, Engine
from server.choice import Choice
from server.served import Served
from server.settings.spec import EngineSpec, ModelSpec, StrategySpec


def unknown(model_id: str) -> RequestError:
    """The fault of an id that names nothing here."""
    return RequestError(f"the model {model_id!r} does not exist", "model", "model_not_found")


def chosen(spec: StrategySpec, preset: str | None = None) -> Choice:
    """What a default or a preset of the configuration asks for."""
    return Choice(spec.strategy, spec.params, preset)


def default_of(spec: ModelSpec, engine: Engine) -> Choice:
    """The configured default, else what every engine of this sort can do."""
    if spec.default is not None:
        return chosen(spec.default)
    diffusion = Capability.DIFFUSION in engine.capabilities
    return Choice("block_diffusion" if diffusion and not able(engine, "plain") else "plain")


def able(engine: Engine, strategy: str) -> bool:
    """Whether the engine can do what the strategy needs."""
    return strategies.find(strategy).requires <= engine.capabilities


def resolved(
    model_id: str, models: Mapping[str, ModelSpec], engines: Mapping[str, Engine]
) -> Served:
    """The model behind a (virtual) id; RequestError `model_not_found` if there is none."""
    base, suffix = model_id, ""
    if base not in models:
        base, _, suffix = model_id.rpartition("@")
    spec = models.get(base)
    if spec is None:
        raise unknown(model_id)
    engine = engines[spec.engine]
    default = default_of(spec, engine)
    presets = {name: chosen(preset, name) for name, preset in spec.presets.items()}
    choice = default
    if base != model_id:
        choice = presets.get(suffix) or _strategy(model_id, suffix, default)
    template = _template(spec)
    return Served(
        model_id, base, engine, choice, default, spec.think, template, presets, spec.tool_parser
    )


def _strategy(model_id: str, suffix: str, default: Choice) -> Choice:
    if suffix not in strategies.names():
        raise unknown(model_id)
    return Choice(suffix, default.params if suffix == default.strategy else {})


def _template(spec: ModelSpec) -> str | None:
    if spec.chat_template is None:
        return None
    with open(spec.chat_template, encoding="utf-8") as file:
        return file.read()


def ids(name: str, spec: ModelSpec, engine: Engine) -> Iterator[str]:
    """A model's own id, then a virtual one for each strategy and preset its engine can do."""
    yield name
    yield from (f"{name}@{strategy}" for strategy in strategies.names() if able(engine, strategy))
    for preset, wanted in spec.presets.items():
        if able(engine, wanted.strategy):
            yield f"{name}@{preset}"


def card(
    served: Served, spec: ModelSpec, engine: EngineSpec | None, created: int
) -> dict[str, Any]:
    """The OpenAI model object, with the base model, the context and an ensemble's members."""
    virtual = served.id != served.base
    own: dict[str, Any] = {
        "id": served.id,
        "object": "model",
        "created": created,
        "owned_by": spec.owned_by,
        "root": served.base,
        "parent": served.base if virtual else None,
        "max_model_len": getattr(served.engine, "max_context", None),
        "decoding": {"strategy": served.chosen.strategy, "params": dict(served.chosen.params)},
    }
    members = engine.own().get("members") if engine else None
    if members:
        own["members"] = list(members)
    if Capability.DIFFUSION in served.engine.capabilities:
        own["diffusion"] = True
    return own
