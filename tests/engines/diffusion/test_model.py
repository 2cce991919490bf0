"""The network against independent ones on the same checkpoints; packing; caches."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engines.diffusion.cache import Cache
from engines.diffusion.model import Denoiser, Pack, Segment
from engines.diffusion.weights import load, shape_of
from tests.fakes.canvases import CONTEXT, llada, slow_dream, slow_llada

CLOSE = 1e-4
IDS = [5, 77, 130, 9, 260, 41, 18, 200, 3, 99, 260, 260]


def whole(model: Denoiser, ids: list[int]) -> torch.Tensor:
    found: torch.Tensor = model([Segment(np.array(ids), 0, np.arange(1, len(ids)))])
    return found


def test_llada_is_what_an_independent_network_says(llada_folder: Path) -> None:
    model = load(llada_folder, "cpu", torch.float32)
    expected = slow_llada(llada_folder)(IDS)[1:]
    assert torch.allclose(whole(model, IDS), expected, atol=CLOSE, rtol=CLOSE)
    # It sees both ways: the last token changes what is said of the first ones.
    assert not torch.allclose(expected[0], slow_llada(llada_folder)([*IDS[:-1], 7])[1], atol=0.01)


def test_dream_is_qwen2_seeing_both_ways_shifted_by_one(dream_folder: Path) -> None:
    model = load(dream_folder, "cpu", torch.float32)
    expected = slow_dream(dream_folder)(IDS)[1:]
    assert torch.allclose(whole(model, IDS), expected, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("fixture", ["llada_folder", "dream_folder"])
def test_what_is_fused_says_the_same(fixture: str, request: pytest.FixtureRequest) -> None:
    """Traced whole, without a break, for any lengths; kernels are the compiler's business."""
    folder = request.getfixturevalue(fixture)
    plain, fused = (load(folder, "cpu", torch.float32) for _ in range(2))
    fused.fuse(backend="eager")
    for ids in (IDS, IDS[:7], IDS[::-1]):
        assert torch.allclose(whole(fused, ids), whole(plain, ids), atol=CLOSE, rtol=CLOSE)


def test_shards_are_one_checkpoint(tmp_path: Path, llada_folder: Path) -> None:
    sharded = load(llada(tmp_path, shards=3), "cpu", torch.float32)
    assert torch.equal(whole(sharded, IDS), whole(load(llada_folder, "cpu", torch.float32), IDS))


def test_bfloat16_is_near(llada_folder: Path) -> None:
    narrow = whole(load(llada_folder, "cpu", torch.bfloat16), IDS)
    wide = whole(load(llada_folder, "cpu", torch.float32), IDS)
    assert narrow.dtype is torch.bfloat16
    assert torch.nn.functional.cosine_similarity(narrow.float(), wide, dim=-1).min() > 0.99


@pytest.mark.parametrize("fixture", ["llada_folder", "dream_folder"])
def test_packed_sequences_do_not_see_each_other(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    model = load(request.getfixturevalue(fixture), "cpu", torch.float32)
    sequences = [IDS, IDS[:7], IDS[::-1], IDS[2:9], IDS[1:]]
    segments = [Segment(np.array(s), 0, np.arange(1, len(s))) for s in sequences]
    together = model(segments).split([len(s) - 1 for s in sequences])
    for sequence, found in zip(sequences, together, strict=True):
        assert torch.allclose(found, whole(model, sequence), atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize("fixture", ["llada_folder", "dream_folder"])
@pytest.mark.parametrize("stop", [9, 12])
def test_a_part_with_a_cache_equals_the_whole_while_nothing_changed(
    fixture: str, stop: int, request: pytest.FixtureRequest
) -> None:
    """Dual (up to 9) and prefix (up to the end), two sequences at once, from other places."""
    model = load(request.getfixturevalue(fixture), "cpu", torch.float32)
    shift = int(model.shape.shifted)
    segments, full = [], []
    for ids, start in ((IDS, 6), (IDS[::-1], 5)):
        cache = Cache(len(ids))
        wanted = np.arange(start, stop)
        full.append(model([Segment(np.array(ids), 0, wanted, kept=cache)]))
        part = np.array(ids[start - shift : stop])
        segments.append(Segment(part, start - shift, wanted, cache=cache))
    assert torch.allclose(model(segments), torch.cat(full), atol=CLOSE, rtol=CLOSE)


def test_a_cache_is_stale_once_something_changed(llada_folder: Path) -> None:
    """Else the law above would hold of a cache that is not used."""
    model = load(llada_folder, "cpu", torch.float32)
    cache, wanted = Cache(len(IDS)), np.arange(6, 9)
    model([Segment(np.array(IDS), 0, wanted, kept=cache)])
    changed = [8, *IDS[1:]]
    full = model([Segment(np.array(changed), 0, wanted)])
    part = model([Segment(np.array(changed[6:9]), 6, wanted, cache=cache)])
    assert not torch.allclose(part, full, atol=0.01)


@pytest.mark.parametrize("fixture", ["llada_folder", "dream_folder"])
def test_equal_sequences_are_forwarded_once(fixture: str, request: pytest.FixtureRequest) -> None:
    """Whole ones, with and without a cache to fill, and parts behind what they share."""
    model = load(request.getfixturevalue(fixture), "cpu", torch.float32)
    shift, ids, other = int(model.shape.shifted), np.array(IDS), np.array(IDS[::-1])
    first, second = Cache(len(IDS)), Cache(len(IDS))
    seen = [np.arange(4, 9), np.arange(2, 7), np.arange(6, 9), np.arange(4, 9)]
    segments = [
        Segment(ids, 0, seen[0], kept=first), Segment(other, 0, seen[1]),
        Segment(ids, 0, seen[2]), Segment(ids, 0, seen[3], kept=second),
    ]  # fmt: skip
    assert len(Pack(segments, model.device, shift).ids) == 2 * len(IDS)
    expected = [model([Segment(one.ids, 0, one.wanted)]) for one in segments]
    assert torch.allclose(model(segments), torch.cat(expected), atol=CLOSE, rtol=CLOSE)
    parts = [
        Segment(ids[6 - shift : 9], 6 - shift, np.arange(6, 9), cache=cache)
        for cache in (first, second)
    ]
    assert len(Pack(parts, model.device, shift).ids) == 3 + shift
    twice = torch.cat([expected[2], expected[2]])
    assert torch.allclose(model(parts), twice, atol=CLOSE, rtol=CLOSE)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "gpt2"}, "model_type"),
        ({"alibi": True}, "alibi"),
        ({"layer_norm_type": "low_precision"}, "layer_norm_type"),
        ({"include_bias": True}, "include_bias"),
    ],
)
def test_a_network_that_is_another_one_is_refused(
    change: dict[str, object], named: str, llada_folder: Path
) -> None:
    import json

    config = json.loads((llada_folder / "config.json").read_text())
    assert shape_of(config).context == CONTEXT
    with pytest.raises(ValueError, match=named):
        shape_of({**config, **change})
    del config["d_model"]
    with pytest.raises(ValueError, match="d_model"):
        shape_of(config)
