"""The vocabulary that all miniature models share: byte-level BPE, digits one by one.

Every string can be encoded and decodes back exactly. Knows nothing of tasks or models.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY = 512
LONGEST = 2048
BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]
# Visible when special tokens are skipped, so that a client can split thinking from content.
MARKERS = ["<think>", "</think>"]
TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def train_tokenizer(
    texts: Iterable[str], size: int = VOCABULARY, extra: Iterable[str] = ()
) -> PreTrainedTokenizerFast:
    """Trains a tokenizer with `size` entries in all.

    `extra`: further special tokens that a later model needs (a mask, a verdict).
    """
    special = [PAD, BOS, EOS, *ROLES, *extra]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            # A forced "\n</think>\n\n" must give the ids that the model would have written.
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size - len(MARKERS),
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.add_tokens([AddedToken(marker, normalized=False, special=False) for marker in MARKERS])
    return dress(core, special)


def dress(core: Tokenizer, special: list[str]) -> PreTrainedTokenizerFast:
    """The core as a Hugging Face tokenizer with roles, markers and chat template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
        model_max_length=LONGEST,
        padding_side="left",
    )
    tokenizer.chat_template = TEMPLATE.read_text(encoding="utf-8")
    return tokenizer
