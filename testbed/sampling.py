"""A batched sampler for measuring and for collecting answers: plain transformers, no server.

Rows that have ended leave the batch. Knows nothing of tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerFast

SHRINK_EVERY = 8


@dataclass(frozen=True)
class Sampler:
    """Draws from the model's own distribution (top-p 1). `temperature` 0 is greedy."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    temperature: float = 1.0
    limit: int = 1024
    rows: int = 256

    def sample(self, prompts: Sequence[str], seed: int = 0) -> list[str]:
        """What the model writes after each prompt, end marker left out."""
        generator = torch.Generator().manual_seed(seed)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        texts = [""] * len(prompts)
        for start in range(0, len(order), self.rows):
            chosen = order[start : start + self.rows]
            written = self.sample_batch([prompts[i] for i in chosen], generator)
            for i, ids in zip(chosen, written, strict=True):
                texts[i] = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return texts

    @torch.inference_mode()
    def sample_batch(self, prompts: list[str], generator: torch.Generator) -> list[list[int]]:
        """New token ids per prompt, all prompts at once."""
        encoded = self.tokenizer(
            prompts, return_tensors="pt", padding=True, add_special_tokens=False
        )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        cache = DynamicCache(config=self.model.config)
        written: list[list[int]] = [[] for _ in prompts]
        alive = torch.arange(len(prompts))
        ended = torch.zeros(len(prompts), dtype=torch.bool)
        for step in range(self.limit):
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache
            ).logits[:, -1]
            token = self.choose(logits, generator)
            ended |= token == self.tokenizer.eos_token_id
            for row, done, t in zip(alive.tolist(), ended.tolist(), token.tolist(), strict=True):
                if not done:
                    written[row].append(t)
            if ended.all():
                break
            ids, mask = token[:, None], torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
            if step % SHRINK_EVERY == SHRINK_EVERY - 1:
                keep = (~ended).nonzero()[:, 0]
                cache.batch_select_indices(keep)
                ids, mask, alive, ended = ids[keep], mask[keep], alive[keep], ended[keep]
        return written

    def choose(self, logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Next tokens int64 [batch] from logits [batch, vocabulary]."""
        if self.temperature == 0:
            return logits.argmax(-1)
        weights = torch.softmax(logits.float() / self.temperature, -1)
        return torch.multinomial(weights, 1, generator=generator)[:, 0]
