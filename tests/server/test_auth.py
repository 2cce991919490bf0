"""Keys from three places, compared without early exit, each with what it may use."""

import hmac
from hashlib import sha256
from pathlib import Path

import pytest

from decoders.core.base import Budget
from server.auth import AuthError, ForbiddenError, Key, Keys, bounded, permit, salt_of
from server.choice import Choice
from server.settings import BudgetSpec, KeySpec, ServerSpec, Settings


def hashed(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def key(**fields: object) -> Key:
    made = Keys(Settings(keys={"one": KeySpec(hash=hashed("s"), **fields)}), {})
    found = made.authenticate("Bearer s")
    assert found is not None
    return found


def test_without_keys_the_server_is_open() -> None:
    keys = Keys(Settings(), {})
    assert keys.open
    assert keys.authenticate(None) is None
    assert salt_of(None) is None


def test_keys_come_from_configuration_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# of the team\nfrom-file  # Ada's\n\n", encoding="utf-8")
    settings = Settings(
        keys={"ada": KeySpec(hash=hashed("configured"))}, server=ServerSpec(keys_file=str(file))
    )
    keys = Keys(settings, {"SATISFICE_API_KEYS": "first, second,"})
    known = ("configured", "first", "second", "from-file")
    found = [keys.authenticate(f"Bearer {text}") for text in known]
    assert [k.name if k else None for k in found] == ["ada", "key-1", "key-2", "key-3"]


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic s", "s", "Bearer x", "Bearer s x", "Bearer ß"]
)
def test_anything_else_is_refused(header: str | None) -> None:
    keys = Keys(Settings(keys={"one": KeySpec(hash=hashed("s"))}), {})
    with pytest.raises(AuthError):
        keys.authenticate(header)


def test_every_key_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("a", "b", "c")
    keys = Keys(Settings(keys={n: KeySpec(hash=hashed(n)) for n in names}), {})
    compared: list[bytes] = []
    real = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(one)
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    for name in names:
        compared.clear()
        keys.authenticate(f"bearer {name}")
        assert len(compared) == 3


def test_the_salt_is_stable_for_a_secret_and_apart_for_keys() -> None:
    settings = Settings(keys={n: KeySpec(hash=hashed(n)) for n in ("a", "b")})
    salts = [
        salt_of(Keys(settings, environ).authenticate(f"Bearer {name}"))
        for environ in ({"SATISFICE_SECRET": "x"}, {"SATISFICE_SECRET": "x"}, {})
        for name in ("a", "b")
    ]
    assert salts[:2] == salts[2:4]
    assert len(set(salts)) == 4
    assert hashed("a") not in str(salts)


@pytest.mark.parametrize(
    ("fields", "choice", "param"),
    [
        ({}, Choice("best_of_n"), None),
        ({"strategies": ["plain"]}, Choice("plain"), None),
        ({"strategies": ["plain"]}, Choice("best_of_n", named=True), "decoding.strategy"),
        ({"strategies": ["plain"]}, Choice("best_of_n"), "model"),
        ({"strategies": ["plain"], "presets": ["p"]}, Choice("best_of_n", preset="p"), None),
        ({"presets": ["p"]}, Choice("best_of_n", preset="q"), "model"),
        ({"presets": []}, Choice("best_of_n"), None),
        ({"models": ["other"]}, Choice("plain"), "model"),
    ],
)
def test_what_a_key_may_use(fields: dict[str, object], choice: Choice, param: str | None) -> None:
    if param is None:
        permit(key(**fields), choice, "mini")
        return
    with pytest.raises(ForbiddenError) as refused:
        permit(key(**fields), choice, "mini")
    assert refused.value.param == param


def test_a_preset_s_parameters_can_be_the_point_of_a_permission() -> None:
    only_preset = key(strategies=[], presets=["small"])
    with pytest.raises(ForbiddenError):
        permit(only_preset, Choice("best_of_n", {"samples": 64}), "mini")
    with pytest.raises(ForbiddenError):
        overridden = Choice("best_of_n", {"samples": 64}, "small", altered=True)
        permit(only_preset, overridden, "mini")


def test_a_strategy_inside_another_s_parameters_is_seen() -> None:
    inside = {"paths": 2, "path": {"strategy": "best_of_n", "params": {}}}
    with pytest.raises(ForbiddenError) as refused:
        permit(key(strategies=["parallel_thinking"]), Choice("parallel_thinking", inside), "mini")
    assert refused.value.param == "decoding.params.path.strategy"
    permit(
        key(strategies=["parallel_thinking", "best_of_n"]),
        Choice("parallel_thinking", inside),
        "mini",
    )


def test_a_key_s_budget_caps_and_refuses_more() -> None:
    spec = BudgetSpec(max_generated_tokens=100, deadline_ms=500)
    capped = key(budget=spec)
    assert bounded(capped, Budget()) == Budget(100, None, None, 500)
    assert bounded(capped, Budget(50, 3, 2, 500)) == Budget(50, 3, 2, 500)
    with pytest.raises(ForbiddenError) as refused:
        bounded(capped, Budget(max_generated_tokens=101))
    assert refused.value.param == "decoding.budget.max_generated_tokens"
    assert bounded(None, Budget(7)) == Budget(7)
