"""Who asks, and what they may use. It knows no HTTP beyond the shape of the Authorization header.

AuthError         no key or a wrong one (401)
ForbiddenError    a key that may not use this strategy, preset, model or spend (403)
"""

import hmac
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

from decoders.core.base import Budget
from server.choice import Choice
from server.settings.spec import KeySpec, Rate, Settings

ENVIRONMENT = "SATISFICE_API_KEYS"


class AuthError(Exception):
    """No key, or one that is not known."""


class ForbiddenError(Exception):
    """The key may not use what was asked for; `param` is the path of the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A known key: its name, what it may use (None: everything) and its cache salt."""

    name: str
    digest: bytes
    salt: str
    strategies: frozenset[str] | None = None
    presets: frozenset[str] | None = None
    models: frozenset[str] | None = None
    budget: Budget = field(default_factory=Budget)
    rate: Rate = field(default_factory=Rate)


class Keys:
    """All keys: those of the configuration, of the environment and of the keys file."""

    def __init__(self, settings: Settings, environ: Mapping[str, str] = os.environ) -> None:
        """Raises OSError if the keys file cannot be read."""
        secret = environ.get(settings.server.secret_env) or token_hex(32)
        self._secret = secret.encode()
        configured = [self._configured(name, spec) for name, spec in settings.keys.items()]
        file = settings.server.keys_file
        plain = [*_from_environment(environ), *(_from_file(Path(file)) if file else ())]
        unrestricted = [self._plain(f"key-{i + 1}", text) for i, text in enumerate(plain)]
        self._keys = (*configured, *unrestricted)

    @property
    def open(self) -> bool:
        """No key is configured: everybody may use everything."""
        return not self._keys

    def authenticate(self, authorization: str | None) -> Key | None:
        """The key in `Bearer KEY`; None on an open server. Raises AuthError.

        Compares with every key in constant time, whichever one matches.
        """
        if self.open:
            return None
        scheme, _, token = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise AuthError("no API key: send the header `Authorization: Bearer KEY`")
        digest = sha256(token.strip().encode()).digest()
        found: Key | None = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise AuthError("incorrect API key provided")
        return found

    def _salt(self, name: str) -> str:
        return hmac.new(self._secret, name.encode(), sha256).hexdigest()[:32]

    def _plain(self, name: str, text: str) -> Key:
        return Key(name=name, digest=sha256(text.encode()).digest(), salt=self._salt(name))

    def _configured(self, name: str, spec: KeySpec) -> Key:
        return Key(
            name=name,
            digest=bytes.fromhex(spec.hash),
            salt=self._salt(name),
            strategies=_names(spec.strategies),
            presets=_names(spec.presets),
            models=_names(spec.models),
            budget=spec.budget.budget(),
            rate=spec.rate,
        )


def salt_of(key: Key | None) -> str | None:
    """What keeps this key's prefix cache apart from others'; None on an open server."""
    return key.salt if key else None


def permit(key: Key | None, choice: Choice, model: str) -> None:
    """Raises ForbiddenError if the key may not use the model, the strategy or the preset.

    An allowed preset may be used as it stands whatever its strategy; with parameters changed only
    if the strategy is allowed too.
    """
    if key is None:
        return
    permit_model(key, model)
    if choice.preset is not None and key.presets is not None:
        if choice.preset not in key.presets:
            raise ForbiddenError(f"this key may not use the preset {choice.preset!r}", "model")
        if not choice.altered:
            return
    for where, name in _nested(choice.params, "decoding.params"):
        if key.strategies is not None and name not in key.strategies:
            raise ForbiddenError(f"this key may not use the strategy {name!r}", where)
    if key.strategies is not None and choice.strategy not in key.strategies:
        message = f"this key may not use the strategy {choice.strategy!r}"
        if choice.altered:
            raise ForbiddenError(f"{message} with other parameters", "decoding.params")
        raise ForbiddenError(message, "decoding.strategy" if choice.named else "model")


def permit_model(key: Key | None, model: str, param: str = "model") -> None:
    """Raises ForbiddenError if the key may not use the model, which is named in `param`."""
    if key is not None and key.models is not None and model not in key.models:
        raise ForbiddenError(f"this key may not use the model {model!r}", param)


def bounded(key: Key | None, budget: Budget) -> Budget:
    """The budget with the key's caps where none was asked for; raises ForbiddenError above them."""
    if key is None:
        return budget
    capped = {}
    for limit in (f.name for f in fields(Budget)):
        asked, most = getattr(budget, limit), getattr(key.budget, limit)
        if asked is not None and most is not None and asked > most:
            message = f"this key may ask for {limit} up to {most}"
            raise ForbiddenError(message, f"decoding.budget.{limit}")
        capped[limit] = most if asked is None else asked
    return Budget(**capped)


def _nested(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Strategies that parameters name, as parallel_thinking's `path` does, each with its path."""
    if isinstance(value, Mapping):
        if isinstance(name := value.get("strategy"), str):
            yield f"{path}.strategy", name
        for key, inner in value.items():
            yield from _nested(inner, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for i, inner in enumerate(value):
            yield from _nested(inner, f"{path}.{i}")


def _names(names: list[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _from_environment(environ: Mapping[str, str]) -> list[str]:
    return [key for part in environ.get(ENVIRONMENT, "").split(",") if (key := part.strip())]


def _from_file(path: Path) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line]
