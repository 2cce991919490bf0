r"""Where in a text the final answer stands: \boxed{}, <answer>, ####, "the answer is".

Knows markers only, not what an answer may look like. Every search is one pass over the text:
answer texts come from models and clients, and a long or hostile one must not cost more than its
length.
"""

import json
import re
from collections.abc import Iterator

Span = tuple[int, int]

_BRACES = re.compile(r"\\(?:boxed|fbox)\s{0,4}\{|\\.|[{}]", re.DOTALL)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_HASHES = re.compile(r"^[ \t]{0,8}####[ \t]{0,8}([^\n]+)$", re.MULTILINE)
_PHRASE = re.compile(
    r"\banswer\b(?:\s{1,4}(?:to|for|of)\b[^.:=\n]{1,80}?)?[\s*_]{0,4}"
    r"(?:is\b|:|=|would be\b|should be\b|must be\b)"
    r"(?:\s{1,4}(?:thus|therefore|simply|then|just)\b)?[\s*_:]{0,8}"
    r"|\bfinal\s{1,4}answer\b[*_# ]{0,6}\n",
    re.IGNORECASE,
)
_LEAD = re.compile(r"[\s*_>]*+")
_SENTENCE_END = re.compile(r"[.!?](?=[\s*_])")
_ABBREVIATION = re.compile(r"(?:\b(?:st|dr|mr|mrs|ms|jr|sr|vs|mt|ft)|\b[a-z])\Z", re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z0-9_+-]{0,20}[ \t]*+\n?")
_CLOSERS = (("\\[", "\\]"), ("$$", "$$"))
_DECODER = json.JSONDecoder()


def innermost(text: str) -> Span | None:
    r"""The span of the marked answer, None without a marker.

    A marked answer may hold another marker (`<answer>\boxed{5}</answer>`); the innermost stands.
    An empty span means: marked, but cut off before the answer ended.
    """
    found: Span | None = None
    low, high = 0, len(text)
    for _ in range(8):
        inner = _mark(text[low:high])
        if inner is None or inner == (0, high - low):
            break
        low, high = low + inner[0], low + inner[1]
        found = (low, high)
    return found


def trim(text: str, low: int, high: int) -> Span:
    """The span without white space at its ends."""
    part = text[low:high]
    return low + len(part) - len(part.lstrip()), high - len(part) + len(part.rstrip())


def fenced(text: str) -> Iterator[Span]:
    """Bodies of ``` blocks, last first."""
    edges = [match.span() for match in _FENCE.finditer(text)]
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    for opening, closing in reversed(pairs):
        yield trim(text, opening[1], closing[0])


def json_end(text: str, start: int) -> int | None:
    """Where the JSON object or array that starts at `start` ends, None if none stands there."""
    try:
        return _DECODER.raw_decode(text, start)[1]
    except (ValueError, RecursionError):
        return None


def _mark(text: str) -> Span | None:
    for seek in (_boxed, _tagged, _hashed, _phrased):
        span = seek(text)
        if span is not None:
            return trim(text, *span)
    return None


def _boxed(text: str) -> Span | None:
    """The last box that is closed and not empty; an empty span if there are only open ones."""
    stack: list[int | None] = []
    best: Span | None = None
    for match in _BRACES.finditer(text):
        token = match.group()
        if token == "{":
            stack.append(None)
        elif token == "}":
            start = stack.pop() if stack else None
            if start is not None and (best is None or start > best[0]):
                best = (start, match.start()) if text[start : match.start()].strip() else best
        elif token.endswith("{") and token != "\\{":
            stack.append(match.end())
    if best is None and any(start is not None for start in stack):
        return len(text), len(text)
    return best


def _tagged(text: str) -> Span | None:
    """The last <answer>; one left open runs to the end, since </answer> may be a stop string."""
    end = len(text)
    for match in reversed(list(_TAG.finditer(text))):
        if match.group(1):
            end = match.start()
        elif text[match.end() : end].strip():
            return match.end(), end
    return None


def _hashed(text: str) -> Span | None:
    """The last '#### x'; a markdown heading is told apart by the text that follows it."""
    last = None
    for match in _HASHES.finditer(text):
        last = match
    if last is None:
        return None
    bare = not re.search(r"[^\W\d_]{2}", last.group(1))
    return last.span(1) if bare or not text[last.end() :].strip() else None


def _phrased(text: str) -> Span | None:
    for match in reversed(list(_PHRASE.finditer(text))):
        lead = _LEAD.match(text, match.end())
        start = lead.end() if lead else match.end()
        if start < len(text):
            return _extent(text, start)
    return None


def _extent(text: str, start: int) -> Span:
    """How far the answer reaches that starts here: a block, a JSON value, else a sentence."""
    for opening, closing in _CLOSERS:
        if text.startswith(opening, start):
            end = text.find(closing, start + 2)
            return start, end + 2 if end >= 0 else len(text)
    fence = _FENCE.match(text, start)
    if fence:
        end = text.find("```", fence.end())
        return fence.end(), end if end >= 0 else len(text)
    if text[start] in "{[":
        end = json_end(text, start) or -1
        if end > 0:
            return start, end
    return start, _sentence_end(text, start)


def _sentence_end(text: str, start: int) -> int:
    line_end = text.find("\n", start)
    line_end = len(text) if line_end < 0 else line_end
    for match in _SENTENCE_END.finditer(text, start, line_end):
        before = text[max(start, match.start() - 4) : match.start()]
        if match.group() != "." or not _ABBREVIATION.search(before):
            return match.start()
    return line_end
