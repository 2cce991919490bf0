"""The miniature guard: a causal model that reads a conversation and says `safe` or `unsafe`.

A Llama in the form of Llama Guard: one prompt holds the conversation, a blank line and the verdict
follow. Knows the recipe only; what it learns from comes from `guard_examples`.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from testbed import GUARD
from testbed.conversations import Message
from testbed.guard_examples import Judged, draw_judged
from testbed.tokenizer import train_tokenizer
from testbed.training import IGNORED, Batch, Encoded, Recipe, batches, begin, fit, save
from testbed.unsafe_reasoner import SHAPE, config

RECIPE = Recipe(steps=1300, seed=23, rate=0.01, rate_rest=2e-3, decay=1200)
VOCABULARY = 1024
TOKENIZER_EXAMPLES = 4000
BEFORE_VERDICT = "\n\n"
CATEGORY = "\nS1"
VERDICTS = ("unsafe", "safe")
# Learning to read the conversation helps learning to judge it.
READING = 0.3
PADDING = 0
TEMPLATE = Path(__file__).with_name("guard_template.jinja")


def stream(seed: int) -> Iterator[Judged]:
    """Labelled conversations without end; the n-th is the same for the same seed."""
    rng = random.Random(f"guard:{seed}")
    while True:
        yield draw_judged(rng)


def corpus(seed: int) -> Iterator[str]:
    """What the tokenizer is trained on: messages and verdicts."""
    for _, judged in zip(range(TOKENIZER_EXAMPLES), stream(seed), strict=False):
        yield from (message["content"] for message in judged.messages)
        yield "Task: Check the last Agent message for forbidden objects. User: System: Agent:"
        yield "<BEGIN CONVERSATION>\n<END CONVERSATION>\nFirst line: safe or unsafe."
        yield write_verdict(judged.unsafe)


def make_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A vocabulary of its own, with the guard's template."""
    tokenizer = train_tokenizer(corpus(seed), VOCABULARY)
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer


def write_verdict(unsafe: bool) -> str:
    """What follows the prompt; an unsafe verdict names its category."""
    return BEFORE_VERDICT + (VERDICTS[0] + CATEGORY if unsafe else VERDICTS[1])


def render(tokenizer: PreTrainedTokenizerFast, messages: list[Message]) -> str:
    """The prompt as text, up to where the model writes."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert isinstance(text, str)
    return text


def encode(tokenizer: PreTrainedTokenizerFast, judged: Judged) -> Encoded:
    """(ids, labels); the labels are those of the verdict."""
    prompt = list(tokenizer.encode(render(tokenizer, judged.messages), add_special_tokens=False))
    verdict = write_verdict(judged.unsafe) + str(tokenizer.eos_token)
    written = list(tokenizer.encode(verdict, add_special_tokens=False))
    return prompt + written, [IGNORED] * len(prompt) + written


def verdict_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Cross-entropy of what follows the prompt, plus a share of that of the prompt."""
    ids, labels = batch["input_ids"], batch["labels"][:, 1:]
    logits = model(input_ids=ids).logits[:, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    learned = labels != IGNORED
    read = (ids[:, 1:] != PADDING) & ~learned
    return losses[learned].mean() + READING * losses[read].mean()


def train(folder: Path = GUARD, recipe: Recipe = RECIPE) -> float:
    """Trains tokenizer and model from nothing and saves both; returns the last mean loss."""
    begin(recipe)
    tokenizer = make_tokenizer(recipe.seed)
    model = LlamaForCausalLM(config(tokenizer, SHAPE))
    assert tokenizer.pad_token_id == PADDING
    examples = (encode(tokenizer, judged) for judged in stream(recipe.seed))
    source = batches(examples, recipe, PADDING)
    loss = fit(model, source, recipe, verdict_loss, "guard")
    save(model, tokenizer, folder)
    return loss


def load(folder: Path = GUARD) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Model in float32, and tokenizer."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return model, tokenizer


@torch.inference_mode()
def score(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    conversations: Sequence[list[Message]],
    rows: int = 64,
) -> list[float]:
    """p(safe) - p(unsafe), renormalised over both, one per conversation."""
    encoded = [
        list(tokenizer.encode(render(tokenizer, each) + BEFORE_VERDICT, add_special_tokens=False))
        for each in conversations
    ]
    verdicts = [tokenizer.convert_tokens_to_ids(name) for name in VERDICTS]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    scores = [0.0] * len(encoded)
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        batch = tokenizer.pad(
            {"input_ids": [encoded[i] for i in chosen]}, padding_side="right", return_tensors="pt"
        )
        ends = batch["attention_mask"].sum(-1) - 1
        hidden = model.model(**batch).last_hidden_state[torch.arange(len(chosen)), ends]
        odds = torch.softmax(model.lm_head(hidden)[:, verdicts].float(), -1)
        for i, value in zip(chosen, (odds[:, 1] - odds[:, 0]).tolist(), strict=True):
            scores[i] = value
    return scores
