"""A reward model or classifier served by vLLM's pooling runner: token ids in, logits out.

Life, figures and faults are those of every vLLM engine. It does not know what the labels mean.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from engines.base import EngineError
from engines.checks import check_room
from engines.labels import LabelsOnly
from engines.vllm.engine import VllmEngine

if TYPE_CHECKING:
    from engines.vllm.llm import Llm

WHOLE, EACH = "classify", "token_classify"


class VllmClassifier(LabelsOnly, VllmEngine):
    """One vLLM engine whose model has labels: its logits as they are, no activation applied."""

    _tasks: frozenset[str] = frozenset()

    async def start(self) -> None:
        """Loads the model; raises EngineError also for one that has no labels."""
        await super().start()
        self._tasks = frozenset(await self._live().get_supported_tasks())
        if not self._tasks & {WHOLE, EACH}:
            await self.stop()
            raise EngineError(f"engine {self.name!r}: its model has no labels to classify by")

    async def classify(self, ids: Sequence[int], *, every: bool = False) -> list[list[float]]:
        """One request; the prefix cache is read only for the row of the last token."""
        from vllm import PoolingParams
        from vllm.inputs.engine import tokens_input

        check_room(self, ids, 0)
        task = EACH if every or WHOLE not in self._tasks else WHOLE
        params = PoolingParams(task=task, use_activation=False)
        async with aclosing(self._outputs(tokens_input(list(ids)), params)) as outputs:
            [pooled] = [output.outputs async for output in outputs]
        rows: list[list[float]] = pooled.data.float().reshape(-1, pooled.data.shape[-1]).tolist()
        if len(rows) != (len(ids) if task == EACH else 1):
            raise EngineError(f"engine {self.name!r} gave {len(rows)} rows for {len(ids)} tokens")
        return rows if every else rows[-1:]

    def _asked(
        self, llm: "Llm", prompt: Any, params: Any, request: str
    ) -> AsyncGenerator[Any, None]:
        outputs: AsyncGenerator[Any, None] = llm.encode(prompt, params, request)
        return outputs
