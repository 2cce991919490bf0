"""The configuration of a diffusion engine. It loads nothing, torch included."""

from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from engines.base import Capability


class Spec(BaseModel):
    """`{kind: diffusion, model: PATH_OR_ID}`; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    capabilities: ClassVar = frozenset(
        {Capability.DIFFUSION, Capability.SEED, Capability.BANNED, Capability.LOGIT_BIAS}
    )

    kind: Literal["diffusion"] = "diffusion"
    model: str = Field(description="folder of a LLaDA or Dream checkpoint, or a hub id")
    tokenizer: str | None = Field(None, description="folder or hub id; the model's own by default")
    max_context: int | None = Field(None, ge=2, description="tokens; the model's own by default")
    device: str = "cpu"
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: float32 on a CPU, bfloat16 elsewhere"
    )
    fused: bool | None = Field(
        None, description="compile what surrounds attention at the first passes; null: on CUDA"
    )
    end_tokens: tuple[str, ...] = Field(
        (), description="tokens that end an answer, besides the checkpoint's own"
    )
    rows: int = Field(64, ge=1, description="canvases that share a forward pass at most")
    tokens: int = Field(16384, ge=1, description="positions that share a forward pass at most")
    lazy: bool = False
