"""How much a grammar may ask of the compiler that turns it into states.

Bounds were set by timing xgrammar: what stays below them compiles within a second or so. It does
not know requests, nor what the grammar is for.
"""

import re
from collections.abc import Mapping
from typing import Any

from decoders.core.base import RequestError

COUNTS = frozenset(
    {
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "minProperties",
        "maxProperties",
        "minContains",
        "maxContains",
    }
)
MOST_REPEATS = 10_000
"""Repetitions in one grammar: compilers unroll them, so a short text can take minutes."""

MOST_NESTED = 100_000
MOST_NODES = 5_000
MOST_CHARACTERS = 100_000
MOST_UNROLLED = 1_000
"""Characters of one pattern within a schema, written out: compiling one takes their square."""

MOST_PATTERNS = 5_000
"""The same over all patterns of a schema."""

REPEATS = re.compile(r"\{(\d+)(?:,(\d*))?\}")
PARTS = re.compile(r"\\.|\{(\d+)(?:,(\d*))?\}|.", re.DOTALL)


def _excess(param: str, most: int, what: str) -> RequestError:
    return RequestError(f"{param}: more than {most} {what}", param, "invalid_value")


def _check_length(text: str, param: str) -> None:
    if len(text) > MOST_CHARACTERS:
        raise _excess(param, MOST_CHARACTERS, "characters")


def check_regex(pattern: str, param: str) -> None:
    """Raises `RequestError` for a pattern by itself that is too much."""
    _check_length(pattern, param)
    if unrolled(pattern) > MOST_REPEATS:
        raise _excess(param, MOST_REPEATS, "characters, its repetitions written out")


def check_rules(text: str, param: str) -> None:
    """The same for a grammar. Its rules repeat each other: which do is not worth parsing."""
    _check_length(text, param)
    repeats = 1
    for counts in REPEATS.findall(text):
        repeats *= _times(*counts)
        if repeats > MOST_REPEATS:
            raise _excess(param, MOST_REPEATS, "repetitions")


def _times(low: str, high: str | None) -> int:
    return max(1, *(int(count[:9]) for count in (low, high) if count))


def unrolled(pattern: str) -> int:
    """Characters and classes of a pattern with its counted repetitions written out."""
    groups = [[0, 0]]  # of each open group: its size so far, that of its last part
    inside = False  # a class in brackets
    for part in PARTS.finditer(pattern):
        text, group = part[0], groups[-1]
        if inside:
            inside = text != "]"
        elif text == "(":
            groups.append([0, 0])
        elif text == ")" and len(groups) > 1:
            size = groups.pop()[0]
            groups[-1] = [groups[-1][0] + size, size]
        elif part[1] is not None:
            times = _times(part[1], part[2])
            group[:] = [group[0] + group[1] * (times - 1), group[1] * times]
        else:
            group[:] = [group[0] + 1, 1]
            inside = text == "["
    return sum(size for size, _ in groups)


class Size:
    """What a schema asks of a compiler: nodes, text, counts (nested ones multiplied), patterns."""

    def __init__(self, param: str) -> None:
        self._param = param
        self._nodes = self._characters = self._patterns = 0

    def add(self, schema: Any) -> None:
        """Walks it; raises `RequestError` as soon as it is too much."""
        stack = [(schema, 1.0)]
        while stack:
            one, outer = stack.pop()
            self._nodes += 1
            if self._nodes > MOST_NODES:
                raise _excess(self._param, MOST_NODES, "nodes")
            if isinstance(one, dict):
                outer *= self._counted(one, outer)
                for name in one:
                    self._text(name)
                stack.extend((value, outer) for value in one.values())
            elif isinstance(one, list):
                stack.extend((value, outer) for value in one)
            elif isinstance(one, str):
                self._text(one)

    def _text(self, text: str) -> None:
        self._characters += len(text)
        if self._characters > MOST_CHARACTERS:
            raise _excess(self._param, MOST_CHARACTERS, "characters")

    def _counted(self, schema: Mapping[str, Any], outer: float) -> float:
        """The largest count of one schema; its patterns are added up."""
        largest = max(1.0, *(_count(schema.get(name)) for name in COUNTS))
        if largest > MOST_REPEATS or largest * outer > MOST_NESTED:
            raise _excess(self._param, MOST_REPEATS, f"repetitions, or {MOST_NESTED} nested ones")
        named = schema.get("patternProperties")
        for pattern in (schema.get("pattern"), *(named if isinstance(named, dict) else ())):
            if isinstance(pattern, str):
                self._pattern(pattern)
        return largest

    def _pattern(self, pattern: str) -> None:
        _check_length(pattern, self._param)
        size = unrolled(pattern)
        self._patterns += size
        if size > MOST_UNROLLED or self._patterns > MOST_PATTERNS:
            all_of_them = f"{MOST_UNROLLED} characters in one pattern, or {MOST_PATTERNS} in all"
            message = f"{self._param}: more than {all_of_them}, repetitions written out"
            raise RequestError(message, self._param, "invalid_value")


def _count(value: Any) -> float:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
