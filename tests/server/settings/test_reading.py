"""Configurations are read from a file, from one model's name, or come with the server."""

import hashlib
from pathlib import Path

import pytest

from decoders.core.base import Budget
from server.settings import KeySpec, Limits, Rate, SettingsError, load
from server.settings.reading import BUILTIN, think_markers
from testbed import REASONER


def test_a_file_is_read_with_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "t.jinja").write_text("{{ x }}", encoding="utf-8")
    file = tmp_path / "c.yaml"
    file.write_text(
        "engines: {a: {kind: vllm, model: ./sub, engine_args: {revision: ./kept}}}\n"
        "models: {m: {engine: a, chat_template: sub/t.jinja}}\n",
        encoding="utf-8",
    )
    settings = load(file)
    own = settings.engines["a"].own()
    assert own["model"] == str(tmp_path / "sub")
    assert own["engine_args"] == {"revision": "./kept"}, "engine_args go as they are"
    assert settings.models["m"].chat_template == str(tmp_path / "sub" / "t.jinja")


def test_faults_are_raised_together(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("engines: {a: {kind: no}}\nmodels: {m: {engine: b}}\n", encoding="utf-8")
    with pytest.raises(SettingsError) as raised:
        load(file)
    assert [fault.line for fault in raised.value.faults] == [1, 2]
    assert "line 2: models.m.engine" in str(raised.value)


def test_the_built_in_configuration_is_valid_and_small() -> None:
    settings = load()
    vllm = [spec for spec in settings.engines.values() if spec.kind == "vllm"]
    assert len(vllm) <= 4
    assert Path(vllm[0].own()["model"]) == REASONER
    assert settings.models["satisfice-mini"].think == ("<think>", "</think>")


def test_one_model_gets_an_engine_and_its_think_markers() -> None:
    settings = load(model=str(REASONER))
    [model] = settings.models.values()
    assert settings.engines[model.engine].kind == "vllm"
    assert list(settings.models) == ["reasoner"]
    assert model.think == ("<think>", "</think>")
    assert load(model="builtin:reasoner").models == settings.models


def test_a_model_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        load(model=str(tmp_path))


def test_a_tokenizer_without_markers_has_none(tmp_path: Path) -> None:
    from engines.table import byte_tokenizer

    byte_tokenizer().hf.save_pretrained(tmp_path / "with")
    assert think_markers(str(tmp_path / "with")) == ["<think>", "</think>"]
    from tests.fakes.reward import tokenizer

    tokenizer_without = tokenizer(64)
    tokenizer_without.chat_template = "{{ messages[0].content }}"
    tokenizer_without.save_pretrained(tmp_path / "without")
    assert think_markers(str(tmp_path / "without")) is None


def test_a_plain_number_is_requests_per_minute() -> None:
    spec = KeySpec.model_validate({"hash": hashlib.sha256(b"k").hexdigest(), "rate": 7})
    assert spec.rate == Rate(requests_per_minute=7)


@pytest.mark.parametrize(
    ("limit", "asked", "holds"),
    [(None, None, None), (5, None, 5), (None, 7, 7), (5, 7, 5), (7, 5, 5)],
)
def test_the_smaller_deadline_holds(
    limit: int | None, asked: int | None, holds: int | None
) -> None:
    bounded = Limits(deadline_ms=limit).bound(Budget(3, 4, 5, asked))
    assert bounded == Budget(3, 4, 5, holds)


def test_the_built_in_file_is_where_the_package_is() -> None:
    assert BUILTIN.parent.name == "server"
    assert BUILTIN.is_file()
