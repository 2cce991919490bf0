"""Every fault of a configuration is found at once, with its line and key."""

from pathlib import Path
from textwrap import dedent

import pytest

from decoders.core import registry as strategies
from server.check import faults, json_schema
from server.settings.crosscheck import JUDGES

GOOD = """\
engines:
  a: {kind: table}
monitors:
  m: {kind: verifier, check: {kind: regex, pattern: "x"}}
models:
  one:
    engine: a
    presets:
      vote: {strategy: parallel_thinking, params: {paths: 4}}
"""


def found(tmp_path: Path, text: str) -> list[tuple[int, str, str]]:
    file = tmp_path / "config.yaml"
    file.write_text(dedent(text), encoding="utf-8")
    return [(fault.line, fault.key, fault.message) for fault in faults(file)]


def with_line(text: str, after: str, line: str) -> str:
    """GOOD with a line put in behind the one that begins with `after`."""
    at = next(i for i, row in enumerate(text.splitlines()) if row.strip().startswith(after))
    rows = text.splitlines()
    return "\n".join([*rows[: at + 1], line, *rows[at + 1 :]])


def test_all_faults_of_a_file_are_told_in_order(tmp_path: Path) -> None:
    text = """\
    engines:
      a: {kind: tabel}
      b:
        kind: table
        sed: 4
    models:
      x: {engine: c, think: [a], default: {strategy: plane}}
      y:
        presets:
          v@8: {strategy: parallel_thinking, params: {path_count: 8, paths: 0}}
          plain: {strategy: plain}
    keys:
      k: {hash: abc, strategies: [plain, safe]}
    limits: {rows: 4, branches: 8}
    serve: {}
    """
    rows = found(tmp_path, text)
    assert [(line, key) for line, key, _ in rows] == [
        (2, "engines.a.kind"),
        (5, "engines.b.sed"),
        (7, "models.x.default.strategy"),
        (7, "models.x.engine"),
        (7, "models.x.think[1]"),
        (8, "models.y.engine"),
        (10, "models.y.presets.v@8"),
        (10, "models.y.presets.v@8.params.path_count"),
        (10, "models.y.presets.v@8.params.paths"),
        (11, "models.y.presets.plain"),
        (13, "keys.k.hash"),
        (13, "keys.k.strategies[1]"),
        (14, "limits"),
        (15, "serve"),
    ]


@pytest.mark.parametrize(
    ("after", "line", "key", "says"),
    [
        ("engine: a", "    presets: {}", "models.one.presets", "given twice"),
        ("engine: a", "    default: {strategy: plain, param: {}}", "models.one.default.param",
         "did you mean 'params'"),
        ("engine: a", "    chat_template: no.jinja", "models.one.chat_template", "no file"),
        ("engine: a", "    default: {strategy: best_of_n, params: {monitor: n}}",
         "models.one.default.params.monitor", "there is no monitor 'n'"),
        ("engine: a", "    default: {strategy: parallel_thinking, params: {weights: n}}",
         "models.one.default.params.weights", "there is no monitor 'n'"),
        ("a: {kind", "  b: {kind: vllm, model: ./nowhere}", "engines.b.model", "no file or folder"),
        ("a: {kind", "  b: {kind: vllm, model: 'builtin:x'}", "engines.b.model", "there are"),
        ("a: {kind", "  b: {kind: vllm}", "engines.b.model", "is missing"),
        ("a: {kind", "  b: 5", "engines.b", "not 5"),
        ("m: {kind", "  n: {kind: rulez}", "monitors.n.kind", "no kind of monitor"),
        ("m: {kind", "  n: {kind: verifier, check: {kind: exact, answer: x}, on_monitor_error: no}",
         "monitors.n.on_monitor_error", "block"),
        ("a: {kind", "  b: !!python/object:os.system {kind: table}", "engines.b", "tag"),
    ],
)  # fmt: skip
def test_one_fault(tmp_path: Path, after: str, line: str, key: str, says: str) -> None:
    text = with_line(GOOD, after, line)
    [fault] = found(tmp_path, text)
    expected = next(i for i, row in enumerate(text.splitlines(), 1) if row == line)
    if says == "given twice":
        expected += 1  # the second of the two
    assert fault[:2] == (expected, key)
    assert says in fault[2]


OTHERS = """\
engines:
  a: {{kind: table}}
  v: {{kind: vllm, model: x}}
  d: {{kind: diffusion, model: x}}
  far: {{kind: remote, url: "http://x", model: x, tokenizer: x, retokenize: true}}
  e: {{kind: ensemble, members: {{p: x, q: y}}, rewards: {{r: {{member: p, reference: q}}}}}}
monitors:
  m: {{kind: verifier, check: {{kind: regex, pattern: "x"}}}}
models:
  other: {{engine: a}}
  one:
    engine: {engine}
    presets:
      p: {{strategy: {strategy}, params: {params}}}
"""


@pytest.mark.parametrize(
    ("engine", "strategy", "params", "key", "says"),
    [
        ("v", "collab", "{target: n}", "params.target", "no monitor 'n'"),
        ("v", "sitalign", "{primary: n}", "params.primary", "no monitor 'n'"),
        ("v", "sitalign", "{primary: m, constrained: [m, n], thresholds: [0, 0]}",
         "params.constrained[1]", "no monitor 'n'"),
        ("v", "collab", "{target: m, models: [other, nobody]}", "params.models[1]",
         "no model 'nobody'"),
        ("v", "parallel_thinking", "{path: {strategy: safethink, params: {monitor: n}}}",
         "params.path.params.monitor", "no monitor 'n'"),
        ("v", "parallel_thinking", "{path: {strategy: safethink, params: {late: maybe}}}",
         "params.path.params.late", "'accept'"),
        ("v", "parallel_thinking", "{path: {strategy: safethnk}}", "params.path.strategy",
         "did you mean 'safethink'"),
        ("v", "parallel_thinking", "{path: {strategy: hex}}", "params.path.strategy",
         "lacks diffusion"),
        ("v", "hex", "{}", "strategy", "lacks diffusion"),
        ("v", "mod", "{}", "strategy", "lacks rules"),
        ("a", "genarm", "{}", "strategy", "lacks rules"),
        ("d", "plain", "{}", "strategy", "lacks generate"),
        ("far", "args", "{monitor: m}", "strategy", "lacks logprobs"),
    ],
)  # fmt: skip
def test_a_preset_that_can_never_work(
    tmp_path: Path, engine: str, strategy: str, params: str, key: str, says: str
) -> None:
    [fault] = found(tmp_path, OTHERS.format(engine=engine, strategy=strategy, params=params))
    assert fault[:2] == (14, f"models.one.presets.p.{key}")
    assert says in fault[2]


@pytest.mark.parametrize(
    ("engine", "strategy", "params"),
    [
        ("e", "collab", "{utility: implicit, target: r}"),
        ("e", "sitalign", "{utility: implicit, primary: r, constrained: [r], thresholds: [0]}"),
        ("e", "mod", "{}"),
        ("d", "hex", "{}"),
        ("a", "args", "{monitor: m}"),
        ("a", "collab", "{target: m, models: [one, other], block: 4, alpha: 0}"),
        ("a", "sitalign",
         "{primary: {kind: regex, pattern: x}, constrained: [m], thresholds: [0]}"),
        ("a", "parallel_thinking",
         "{weights: m, path: {strategy: safethink, params: {monitor: m}}}"),
    ],
)  # fmt: skip
def test_a_preset_that_can_work(tmp_path: Path, engine: str, strategy: str, params: str) -> None:
    assert found(tmp_path, OTHERS.format(engine=engine, strategy=strategy, params=params)) == []


def test_every_parameter_that_names_a_monitor_is_looked_up() -> None:
    judges = {
        name
        for strategy in strategies.names()
        for name, field in strategies.find(strategy).options.model_fields.items()
        if name == "monitor" or "monitors.verifier" in str(field.annotation)
    }
    assert judges == set(JUDGES)


def test_a_valid_file_has_none(tmp_path: Path) -> None:
    assert found(tmp_path, GOOD) == []


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\tx: 1", "a: &x [*x]", "- 1", "5", ""])
def test_no_text_raises(tmp_path: Path, text: str) -> None:
    assert found(tmp_path, text)


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    [fault] = faults(tmp_path / "none.yaml")
    assert "cannot read" in fault.message


def test_a_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00bad")
    assert faults(tmp_path / "x.yaml")


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    text = GOOD + "keys:\n  a: &base {hash: " + "a" * 64 + ", rate: 5}\n"
    text += "  b: {<<: *base, hash: " + "b" * 64 + "}\n"
    assert found(tmp_path, text) == []


def test_the_same_key_twice_is_told(tmp_path: Path) -> None:
    twice = "".join(f"  {name}: {{hash: {'a' * 64}}}\n" for name in "ab")
    text = f"{GOOD}keys:\n{twice}"
    [fault] = found(tmp_path, text)
    assert fault[1] == "keys.b.hash"


def test_the_schema_accepts_what_the_check_accepts(tmp_path: Path) -> None:
    import jsonschema
    import yaml

    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"modles": {}}, schema)


def test_members_that_are_not_there_or_turn_in_a_circle_are_told(tmp_path: Path) -> None:
    base = "{kind: verifier, check: {kind: exact, answer: x}"
    rows = "".join(f"  {n}: {base}, members: [{m}]}}\n" for n, m in ("ab", "ba", "cm", "dx"))
    found_ = found(tmp_path, GOOD.replace("models:", f"{rows}models:"))
    told = {key: text for _, key, text in found_ if "unknown key" not in text}
    assert told.keys() == {"monitors.d.members[0]", "monitors.a.members"}
    assert "there is no monitor 'x'" in told["monitors.d.members[0]"]
    assert "made of itself" in told["monitors.a.members"]
