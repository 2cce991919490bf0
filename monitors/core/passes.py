"""Forward passes of a torch model over many texts at once, each read as if it were alone.

Texts are sorted by length and cut into batches, so that little is computed for padding, which
stands on the right, where a causal model does not see it. Pure functions over a loaded model: they
know no tokenizer, no monitor and no template. Torch is imported when they are first called.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import torch

BATCH_TOKENS = 16_384
"""Tokens of one pass, padding included."""
BATCH_LOGITS = 2**27
"""Logits over a vocabulary that one pass may give: half a gigabyte."""

Ids = Sequence[int]
Row = list[float]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Reading(NamedTuple):
    """A text's token ids, and the positions after which the model is read."""

    ids: Ids
    places: Sequence[int]


def sequence_logits(model: Any, batch: Sequence[Ids]) -> list[Row]:
    """Each text's raw logits, one per label: `model` classifies sequences by their last token."""
    return _in_passes(batch, len, _fit, lambda rows: _sequence_pass(model, rows))


def token_logits(model: Any, batch: Sequence[Reading]) -> list[list[Row]]:
    """Raw logits, one per label, at each text's places: `model` classifies tokens."""
    return _in_passes(batch, _length, _readings_fit, lambda rows: _token_pass(model, rows))


def next_logprobs(model: Any, batch: Sequence[Reading], tokens: Sequence[int]) -> list[list[Row]]:
    """Log-probabilities of `tokens` as the next one after each place: `model` is a causal LM."""
    vocabulary = int(model.config.get_text_config().vocab_size)

    def fits(rows: Sequence[Reading]) -> bool:
        places = len({place for reading in rows for place in reading.places})
        small = len(rows) * places * vocabulary <= BATCH_LOGITS
        return small and _readings_fit(rows)

    return _in_passes(batch, _length, fits, lambda rows: _next_pass(model, rows, tokens))


def padded(batch: Sequence[Ids], filler: int, device: Any) -> tuple["torch.Tensor", "torch.Tensor"]:
    """The batch as one rectangle, filled up on the right, and its mask; both on `device`."""
    import torch

    width = max(map(len, batch))
    ids = torch.tensor([[*row, *[filler] * (width - len(row))] for row in batch])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch])
    return ids.to(device), mask.to(device)


def chunks(items: Sequence[Item], fits: Callable[[Sequence[Item]], bool]) -> Iterator[list[Item]]:
    """Runs of `items`, in order, as long as they fit; one that never fits stands alone."""
    run: list[Item] = []
    for item in items:
        if run and not fits([*run, item]):
            yield run
            run = []
        run.append(item)
    if run:
        yield run


def _in_passes(
    batch: Sequence[Item],
    length: Callable[[Item], int],
    fits: Callable[[Sequence[Item]], bool],
    forward: Callable[[Sequence[Item]], Sequence[Result]],
) -> list[Result]:
    """`forward` over runs of similar length; the results in the order of the batch."""
    order = sorted(range(len(batch)), key=lambda at: length(batch[at]))
    found: dict[int, Result] = {}
    for run in chunks(order, lambda run: fits([batch[at] for at in run])):
        found |= zip(run, forward([batch[at] for at in run]), strict=True)
    return [found[at] for at in range(len(batch))]


def _fit(batch: Sequence[Ids]) -> bool:
    return len(batch) * max(map(len, batch)) <= BATCH_TOKENS


def _readings_fit(batch: Sequence[Reading]) -> bool:
    return _fit([reading.ids for reading in batch])


def _length(reading: Reading) -> int:
    return len(reading.ids)


def _sequence_pass(model: Any, batch: Sequence[Ids]) -> list[Row]:
    import torch

    # The model finds a row's end as its last token that is no padding: any id serves as
    # padding that ends no row, whereas the configured one often does.
    ends = {ids[-1] for ids in batch}
    filler = next(token for token in range(len(ends) + 1) if token not in ends)
    model.config.get_text_config().pad_token_id = filler
    ids, mask = padded(batch, filler, model.device)
    with torch.inference_mode():
        logits: list[Row] = model(input_ids=ids, attention_mask=mask).logits.float().tolist()
    return logits


def _token_pass(model: Any, batch: Sequence[Reading]) -> list[list[Row]]:
    import torch

    ids, mask = padded([reading.ids for reading in batch], 0, model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float()
    return [logits[at, list(reading.places)].tolist() for at, reading in enumerate(batch)]


def _next_pass(model: Any, batch: Sequence[Reading], tokens: Sequence[int]) -> list[list[Row]]:
    import torch

    ids, mask = padded([reading.ids for reading in batch], 0, model.device)
    # Over a large vocabulary the logits of all positions would not fit into memory.
    kept = sorted({place for reading in batch for place in reading.places})
    column = {place: at for at, place in enumerate(kept)}
    with torch.inference_mode():
        out = model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=False,
            logits_to_keep=torch.tensor(kept, device=model.device),
        )
        logprobs = out.logits.float().log_softmax(-1)[..., list(tokens)]
    return [
        logprobs[at, [column[place] for place in reading.places]].tolist()
        for at, reading in enumerate(batch)
    ]
