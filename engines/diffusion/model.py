"""The denoiser: a transformer that sees both ways, over packed sequences of any lengths.

LLaDA and Dream are the same network but for biases, heads and where a position's logits stand; the
differences are numbers in `Shape`. Sequences are packed, not padded: linear layers run over all
tokens at once, attention over groups of equal size, so no row ever sees another's padding. It does
not know checkpoints, canvases or sampling.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from engines.diffusion.cache import Cache, patched


@dataclass(frozen=True, slots=True)
class Shape:
    """A network's sizes, and where it differs from others of its sort.

    `shifted`: a position's logits stand one position earlier, as in autoregressive models.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    eps: float
    theta: float
    context: int
    mask_id: int
    ends: frozenset[int]
    style: str
    biased: bool = False
    shifted: bool = False
    tied: bool = False

    @property
    def head_width(self) -> int:
        """The width of one attention head."""
        return self.width // self.heads


Ids = NDArray[np.int64]


@dataclass(slots=True)
class Segment:
    """A run of one sequence's tokens to be forwarded, from position `first` on.

    With a `cache` it is a part, and the rest is taken from there; with `kept` its keys and values
    are put there. `wanted` are the positions whose logits are asked for.
    """

    ids: Ids
    first: int
    wanted: Ids
    cache: Cache | None = None
    kept: Cache | None = None

    @property
    def size(self) -> tuple[int, int]:
        """What must be equal for attention in one go: tokens here and tokens kept."""
        return len(self.ids), self.cache.length if self.cache else 0

    @property
    def content(self) -> tuple[int, int, bytes]:
        """What must be equal for two of them to be one: tokens, place and what is kept."""
        return id(self.cache.keys) if self.cache else 0, self.first, self.ids.tobytes()


@dataclass(slots=True)
class Group:
    """Segments of one size, side by side: tokens `start` to `stop` of the pack."""

    start: int
    stop: int
    segments: Sequence[Segment]
    firsts: Tensor


class Pack:
    """Segments in one row, those of equal size together.

    Equal ones stand there once: canvases behind one prompt begin alike and often go on alike.
    `rows` is where the wanted positions' logits stand, segment after segment.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device, shift: int) -> None:
        alike: dict[tuple[int, int, bytes], list[int]] = {}
        for i, segment in enumerate(segments):
            alike.setdefault(segment.content, []).append(i)
        runs = sorted(alike.values(), key=lambda run: segments[run[0]].size)
        packed = [merged([segments[i] for i in run]) for run in runs]
        sizes = np.cumsum([0, *(len(one.ids) for one in packed)])
        rows: list[Ids] = [segment.wanted for segment in segments]
        for run, at in zip(runs, sizes, strict=False):
            for i in run:
                rows[i] = segments[i].wanted + (at - segments[i].first - shift)
        spans = [np.arange(one.first, one.first + len(one.ids)) for one in packed]

        def there(parts: Sequence[Ids]) -> Tensor:
            return torch.from_numpy(np.concatenate(parts)).to(device)

        self.ids, self.positions, self.rows = (
            there(parts) for parts in ([one.ids for one in packed], spans, rows)
        )
        self.groups: list[Group] = []
        for _, group in groupby(range(len(packed)), key=lambda i: packed[i].size):
            first, *_ = places = list(group)
            last = places[-1]
            same = packed[first : last + 1]
            firsts = there([np.array([one.first for one in same])])
            self.groups.append(Group(int(sizes[first]), int(sizes[last + 1]), same, firsts))


def merged(twins: Sequence[Segment]) -> Segment:
    """One segment for several equal ones; all that keep something keep the same."""
    keeping = [one for one in twins if one.kept is not None]
    if not keeping:
        return twins[0]
    first, *others = (one.kept for one in keeping if one.kept is not None)
    for other in others:
        other.share(first)
    return keeping[0]


class Norm(nn.Module):
    """Root-mean-square normalisation, worked out in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Scales each row to unit mean square."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        scaled: Tensor = self.weight * wide.to(x.dtype)
        return scaled


def turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, worked out in float32; x is [tokens, heads, width]."""
    wide = x.float()
    left, right = wide.chunk(2, -1)
    return (wide * cos + torch.cat([-right, left], -1) * sin).to(x.dtype)


class Layer(nn.Module):
    """One block: attention both ways, then a gated feed-forward network."""

    def __init__(self, shape: Shape, index: int) -> None:
        super().__init__()
        self.shape, self.index = shape, index
        width, per = shape.width, shape.head_width
        self.norm = Norm(width, shape.eps)
        self.q = nn.Linear(width, shape.heads * per, bias=shape.biased)
        self.k = nn.Linear(width, shape.kv_heads * per, bias=shape.biased)
        self.v = nn.Linear(width, shape.kv_heads * per, bias=shape.biased)
        self.out = nn.Linear(shape.heads * per, width, bias=False)
        self.inner_norm = Norm(width, shape.eps)
        self.gate = nn.Linear(width, shape.inner, bias=False)
        self.up = nn.Linear(width, shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, width, bias=False)
        self.before: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = (
            self._before
        )
        self.after: Callable[[Tensor, Tensor], Tensor] = self._after

    def forward(
        self, x: Tensor, pack: Pack, cos: Tensor, sin: Tensor, rows: Tensor | None = None
    ) -> Tensor:
        """Over a whole pack, [tokens, width]; with `rows` it says what becomes of those alone."""
        q, k, v = self.before(x, cos, sin)
        parts = [self._group(group, q, k, v) for group in pack.groups]
        seen = parts[0] if len(parts) == 1 else torch.cat(parts)
        if rows is not None:
            x, seen = x[rows], seen[rows]
        return self.after(x, seen)

    def _before(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, [tokens, heads, width of one]."""
        per, x = self.shape.head_width, self.norm(x)
        q = turned(self.q(x).view(len(x), -1, per), cos, sin)
        k = turned(self.k(x).view(len(x), -1, per), cos, sin)
        return q, k, self.v(x).view(len(x), -1, per)

    def _after(self, x: Tensor, seen: Tensor) -> Tensor:
        """What attention saw is put in, then the feed-forward network's part."""
        x = x + self.out(seen)
        inner = self.inner_norm(x)
        after: Tensor = x + self.down(F.silu(self.gate(inner)) * self.up(inner))
        return after

    def _group(self, group: Group, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Each segment attends to its own sequence and to nothing else."""
        count = len(group.segments)
        own, keys, values = (
            t[group.start : group.stop].view(count, -1, *t.shape[1:]) for t in (q, k, v)
        )
        for row, segment in enumerate(group.segments):
            if segment.kept is not None:
                segment.kept.keep(keys[row], values[row])
        caches = [segment.cache for segment in group.segments if segment.cache is not None]
        if caches:
            keys, values = patched(caches, self.index, group.firsts, keys, values)
        seen = F.scaled_dot_product_attention(
            own.transpose(1, 2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            enable_gqa=self.shape.heads != self.shape.kv_heads,
        )
        return seen.transpose(1, 2).flatten(2).flatten(0, 1)


class Denoiser(nn.Module):
    """The whole network; its parameters are filled in by `weights`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.width)
        self.layers = nn.ModuleList(Layer(shape, i) for i in range(shape.layers))
        self.norm = Norm(shape.width, shape.eps)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embed.weight.device

    def fuse(self, backend: str = "inductor") -> None:
        """Compiles what stands before and after attention into few kernels; attention is one.

        Shapes stay free, since hardly two passes have the same.
        """
        for layer in self.layers:
            assert isinstance(layer, Layer)
            layer.before = torch.compile(
                layer.before, backend=backend, dynamic=True, fullgraph=True
            )
            layer.after = torch.compile(layer.after, backend=backend, dynamic=True, fullgraph=True)

    @torch.inference_mode()
    def forward(self, segments: Sequence[Segment]) -> Tensor:
        """Logits of the wanted positions, segment after segment, [rows, vocabulary]."""
        pack = Pack(segments, self.device, int(self.shape.shifted))
        cos, sin = self._rotation(pack.positions)
        x = self.embed(pack.ids)
        *layers, last = self.layers
        for layer in layers:
            x = layer(x, pack, cos, sin)
        logits: Tensor = self.head(self.norm(last(x, pack, cos, sin, pack.rows)))
        return logits

    def _rotation(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        per = self.shape.head_width
        powers = torch.arange(0, per, 2, device=self.device, dtype=torch.float32) / per
        angles = positions[:, None].float() / self.shape.theta**powers
        both = torch.cat([angles, angles], -1)[:, None]
        return both.cos(), both.sin()
