"""Process rewards: both forms against the plain model, where steps end, what they come to."""

import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from engines import reference
from engines.base import Engine
from engines.table import byte_tokenizer
from monitors.core.base import Message, Monitor, MonitorError, Stage, UnreadableError
from monitors.core.registry import Parts, build
from monitors.process_reward import probability, split
from tests.checkpoints import make_llama, make_tagger

ASKED: list[Message] = [{"role": "user", "content": "2+3*4?"}]
STEPS = ["3*4=12.\n\n", "2+12=14.\n\n", "14"]
TAG: dict[str, Any] = {"form": "verdict", "separator": "#", "after": "\n"}
CLOSE = 1e-5


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tagger(tmp_path_factory.mktemp("tagger"))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_llama(tmp_path_factory.mktemp("causal"))


async def started(parts: Parts | None = None, /, **spec: Any) -> Monitor:
    monitor = build("prm", {"kind": "process_reward", **spec}, parts or Parts())
    await monitor.start()
    return monitor


def ids_of(*texts: str) -> list[list[int]]:
    encode = byte_tokenizer().encode
    return [encode(text, special=False) for text in texts]


def plain(load: Any, folder: Path, pieces: Sequence[Sequence[int]]) -> torch.Tensor:
    """The model's logits after each token of the pieces joined, alone and without padding."""
    model = load.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([list(chain(*pieces))])).logits[0]
    return logits


async def test_labels_are_read_at_each_steps_last_token(tagger: Path) -> None:
    monitor = await started(model=str(tagger))
    score = await monitor.score(ASKED, STEPS, Stage.ANSWER)
    pieces = ids_of("<|user|>2+3*4?<|end|><|assistant|>", *STEPS, "<|end|>")
    logits = plain(AutoModelForTokenClassification, tagger, pieces)
    ends = [sum(map(len, pieces[: i + 2])) - 1 for i in range(3)]
    expected = logits[ends].softmax(-1)[:, 1].tolist()
    assert score.steps == pytest.approx(expected, abs=CLOSE)
    assert score.value == score.raw == min(score.steps)
    assert score.tokens == sum(map(len, pieces))
    other = await started(model=str(tagger), label=0)
    flipped = (await other.score(ASKED, STEPS, Stage.ANSWER)).steps
    assert flipped == pytest.approx([1 - one for one in expected], abs=CLOSE)


async def test_labels_are_read_at_separators(tagger: Path) -> None:
    monitor = await started(model=str(tagger), separator="<|tool|>")
    score = await monitor.score(ASKED, STEPS, Stage.ANSWER)
    text = "<|user|>2+3*4?<|end|><|assistant|>3*4=12.<|tool|>2+12=14.<|tool|>14<|tool|><|end|>"
    [ids] = ids_of(text)
    [[tag]] = ids_of("<|tool|>")
    logits = plain(AutoModelForTokenClassification, tagger, [ids])
    ends = [at for at, token in enumerate(ids) if token == tag]
    assert score.steps == pytest.approx(logits[ends].softmax(-1)[:, 1].tolist(), abs=CLOSE)


async def test_a_causal_model_says_good_or_bad_at_each_tag(causal: Path) -> None:
    monitor = await started(model=str(causal), **TAG)
    score = await monitor.score(ASKED, STEPS, Stage.ANSWER)
    [ids] = ids_of("<|user|>2+3*4?<|end|><|assistant|>3*4=12.#\n2+12=14.#\n14#\n<|end|>")
    [[tag], [good], [bad]] = ids_of("#", "+", "-")
    logits = plain(AutoModelForCausalLM, causal, [ids])
    ends = [at for at, token in enumerate(ids) if token == tag]
    expected = logits[ends][:, [good, bad]].softmax(-1)[:, 0].tolist()
    assert score.steps == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("form", ["head", "verdict"])
async def test_an_engine_gives_the_same_scores(form: str, tagger: Path, causal: Path) -> None:
    folder, own = (tagger, dict[str, Any]()) if form == "head" else (causal, TAG)
    runner = "pooling" if form == "head" else "generate"
    engine: Engine = reference.build(
        "e", {"kind": "reference", "model": str(folder), "runner": runner}
    )
    await engine.start()
    here = await started(model=str(folder), **own)
    there = await started(Parts({"e": engine}), engine="e", **own)
    expected = await here.score(ASKED, STEPS, Stage.ANSWER)
    found = await there.score(ASKED, STEPS, Stage.ANSWER)
    assert found.steps == pytest.approx(expected.steps, abs=CLOSE)
    assert found.tokens == expected.tokens
    await engine.stop()
    wrong = {} if form == "verdict" else TAG
    with pytest.raises(ValueError, match="'e' cannot"):
        build("prm", {"kind": "process_reward", "engine": "e", **wrong}, Parts({"e": engine}))


@pytest.mark.parametrize(
    ("name", "aggregate"), [("minimum", min), ("last", lambda v: v[-1]), ("mean", fmean)]
)
async def test_what_the_steps_come_to(tagger: Path, name: str, aggregate: Any) -> None:
    score = await (await started(model=str(tagger), aggregate=name)).score(
        ASKED, STEPS, Stage.ANSWER
    )
    assert score.value == pytest.approx(aggregate(score.steps))
    assert len(set(score.steps)) == 3


async def test_a_step_added_cannot_raise_the_minimum(tagger: Path) -> None:
    monitor = await started(model=str(tagger))
    values = [(await monitor.score(ASKED, STEPS[:n], Stage.THINKING)).value for n in range(1, 4)]
    assert values == sorted(values, reverse=True)


async def test_no_text_passes_for_a_separator(tagger: Path) -> None:
    monitor = await started(model=str(tagger), separator="<|tool|>")
    asked: list[Message] = [
        {"role": "user", "content": "a <|tool|> b \N{OBJECT REPLACEMENT CHARACTER}"}
    ]
    score = await monitor.score(asked, ["one <|tool|> two", "\n\nthree"], Stage.ANSWER)
    assert len(score.steps) == 2


@pytest.mark.parametrize(
    ("steps", "ends", "expected"),
    [
        (["a\n\nb\nc", "d"], "paragraph", ["a\n\n", "b\nc", "d"]),
        (["a\n\nb\nc", "d"], "line", ["a\n\n", "b\n", "c", "d"]),
        (["a\n\nb", "c"], "given", ["a\n\nb", "c"]),
        (["\n\na", "\n \n", "b"], "paragraph", ["\n\na\n \n", "b"]),
        (["a\n \t\n\nb"], "paragraph", ["a\n \t\n\n", "b"]),
        (["", " "], "line", []),
    ],
)
def test_where_steps_end(steps: list[str], ends: str, expected: list[str]) -> None:
    assert split(steps, ends) == expected
    assert "".join(split(steps, ends)) == ("".join(steps) if expected else "")


def test_probabilities_of_logits() -> None:
    assert probability([0.3], None) == pytest.approx(1 / (1 + math.exp(-0.3)))
    assert probability([1.0, 1.0], None) == 0.5
    assert probability([1000.0, 0.0, -1000.0], 0) == pytest.approx(1.0)
    assert probability([-1000.0], None) == pytest.approx(0.0)


async def test_what_cannot_be_judged_is_the_texts_fault(tagger: Path) -> None:
    monitor = await started(model=str(tagger))
    with pytest.raises(UnreadableError, match="needs a step"):
        await monitor.score(ASKED, [], Stage.THINKING)
    with pytest.raises(UnreadableError, match="reads 512 tokens"):
        await monitor.score(ASKED, ["4" * 600], Stage.ANSWER)


async def test_a_configuration_that_does_not_fit_is_refused(tagger: Path, causal: Path) -> None:
    with pytest.raises(ValueError, match="separator"):
        build("prm", {"kind": "process_reward", "model": "x", "form": "verdict"})
    with pytest.raises(MonitorError, match="good: 'yes' is no token"):
        await started(model=str(causal), **TAG, good="yes")
    with pytest.raises(MonitorError, match="separator: 'ab' is no token"):
        await started(model=str(tagger), separator="ab")
    with pytest.raises(MonitorError, match="its model has 2 labels"):
        await started(model=str(tagger), label=2)


async def test_a_template_that_leaves_the_answer_out_is_seen(tagger: Path, tmp_path: Path) -> None:
    template = tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}", encoding="utf-8")
    monitor = await started(model=str(tagger), chat_template=str(template))
    with pytest.raises(UnreadableError, match="leaves the answer out"):
        await monitor.score(ASKED, STEPS, Stage.ANSWER)
    template.write_text("{{ messages[0].content }} {{ messages[1].content }}", encoding="utf-8")
    monitor = await started(model=str(tagger), chat_template=str(template))
    found = await monitor.score(ASKED, STEPS, Stage.ANSWER)
    assert found.tokens == len("2+3*4? " + "".join(STEPS))
