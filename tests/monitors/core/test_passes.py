"""Shared passes: every text is read as it would be alone, in batches that hold to their limits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from monitors.core import passes
from monitors.core.passes import Reading, chunks, next_logprobs, sequence_logits, token_logits
from tests.checkpoints import make_llama, make_tagger
from tests.fakes.reward import write_reward

CLOSE = 1e-5
TEXTS = [[5, 6, 7], [9], [8, 8, 256, 8, 256], list(range(40)), [256, 1], [0, 0]]
READINGS = [Reading(ids, sorted({0, len(ids) // 2, len(ids) - 1})) for ids in TEXTS]


def whole(model: Any, ids: list[int]) -> torch.Tensor:
    """The logits at every position of one text, alone and without padding."""
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits[0]
    return logits


@pytest.fixture(params=[2**14, 12])
def batches(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All texts in one pass, and in several."""
    monkeypatch.setattr(passes, "BATCH_TOKENS", request.param)


@pytest.mark.usefixtures("batches")
def test_a_sequence_is_read_at_its_own_end(tmp_path: Path) -> None:
    load = AutoModelForSequenceClassification.from_pretrained
    model, alone = (load(write_reward(tmp_path, labels=3)).eval() for _ in range(2))
    alone.config.pad_token_id = None  # then the last token is the end, whatever it is
    expected = [whole(alone, ids).tolist() for ids in TEXTS]
    assert sequence_logits(model, TEXTS) == [pytest.approx(row, abs=CLOSE) for row in expected]


@pytest.mark.usefixtures("batches")
def test_tokens_are_read_at_their_places(tmp_path: Path) -> None:
    model = AutoModelForTokenClassification.from_pretrained(make_tagger(tmp_path)).eval()
    for reading, rows in zip(READINGS, token_logits(model, READINGS), strict=True):
        expected = whole(model, list(reading.ids))[list(reading.places)]
        assert torch.allclose(torch.tensor(rows), expected, atol=CLOSE)


@pytest.mark.parametrize("most", [2**27, 2000])
def test_next_tokens_are_read_after_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(passes, "BATCH_LOGITS", most)
    model = AutoModelForCausalLM.from_pretrained(make_llama(tmp_path)).eval()
    tokens = [65, 3, 100]
    for reading, rows in zip(READINGS, next_logprobs(model, READINGS, tokens), strict=True):
        expected = whole(model, list(reading.ids)).log_softmax(-1)[list(reading.places)]
        assert torch.allclose(torch.tensor(rows), expected[:, tokens], atol=CLOSE)


def test_chunks_hold_to_the_limit_and_keep_the_order() -> None:
    lengths = [1, 2, 50, 50, 100, 200]
    cut = list(chunks(lengths, lambda run: len(run) * max(run) <= 100))
    assert cut == [[1, 2], [50, 50], [100], [200]]
    assert list(chunks([], lambda run: True)) == []
