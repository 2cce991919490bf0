"""`canonical`: the final answer of a text, found and reduced to its canonical form.

An abstention is None: no answer, an answer cut off, or a form that the asked kind does not have.
The rules about which answers are equal stand with each form, in `numbers` and `forms`. It does
not know whether generation was cut off; whoever does should let such a path abstain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from decoders.core.answers.forms import (
    asked_choice_key,
    choice_key,
    final_choice,
    json_key,
    last_choice,
    last_json,
    text_key,
    yes_no_key,
)
from decoders.core.answers.marks import Span, innermost, trim
from decoders.core.answers.numbers import last_number, number_key

AnswerKind = Literal["auto", "number", "choice", "json", "text"]
Form = tuple[Literal["number", "choice", "json", "text"], Callable[[str], str | None]]
Seek = Callable[[str], Span | None]

# A final answer stands at the end; what lies further back than this is not looked at.
_WINDOW = 65536
_LINE = 500

_NUMBER: Form = ("number", number_key)
_CHOICE: Form = ("choice", choice_key)
_JSON: Form = ("json", json_key)
_TEXT: Form = ("text", text_key)

_MARKED: dict[AnswerKind, Sequence[Form]] = {
    "auto": (_JSON, _CHOICE, _NUMBER, _TEXT),
    "number": (_NUMBER,),
    "choice": (("choice", asked_choice_key),),
    "json": (_JSON,),
    "text": (_TEXT,),
}
_UNMARKED = {**_MARKED, "auto": (_JSON, _CHOICE, _NUMBER, ("text", yes_no_key))}
# Where an answer of an asked form may stand inside a longer text, and, for "auto", at its end.
_INSIDE: dict[AnswerKind, Sequence[tuple[Form, Seek]]] = {
    "number": ((_NUMBER, last_number),),
    "choice": ((_CHOICE, last_choice),),
    "json": ((_JSON, last_json),),
}
_AT_END = {**_INSIDE, "auto": ((_CHOICE, final_choice), (_NUMBER, last_number))}


@dataclass(frozen=True)
class Canonical:
    """One answer in canonical form.

    `key` is what votes are counted by. `shown` is the answer as it was written, and
    `text[span[0]:span[1]] == shown`; reading `shown` again as `kind` gives the same key.
    """

    key: str
    shown: str
    span: Span
    kind: Literal["number", "choice", "json", "text"]


def canonical(text: str, kind: AnswerKind = "auto") -> Canonical | None:
    r"""Find the final answer of `text` and its canonical form; None abstains.

    Looked for in this order: text that is JSON as a whole; the last \boxed{}; <answer>; '####';
    "answer is" or "answer:"; the whole text, if it is nothing but an answer; JSON in a fence; a
    last line that ends on a bracketed or named choice; the last number of the last line. `kind`
    fixes the form; "auto" takes the first of JSON, choice letter, number and, behind a marker,
    plain text.
    """
    base = max(0, len(text) - _WINDOW)
    found = _search(text[base:], kind)
    if found is None or base == 0:
        return found
    span = (found.span[0] + base, found.span[1] + base)
    return Canonical(found.key, found.shown, span, found.kind)


def _search(text: str, kind: AnswerKind) -> Canonical | None:
    whole = trim(text, 0, len(text))
    if kind in ("auto", "json") and (answer := _read(text, whole, (_JSON,))):
        return answer
    marked = innermost(text)
    if marked is not None:
        return _read(text, marked, _MARKED[kind]) or _read_inside(
            text, marked, _INSIDE.get(kind, ())
        )
    return _read(text, whole, _UNMARKED[kind]) or _guess(text, whole, kind)


def _read(text: str, span: Span, forms: Sequence[Form]) -> Canonical | None:
    content = text[slice(*span)]
    for kind, form in forms:
        key = form(content)
        if key is not None:
            return Canonical(f"{kind}:{key}", content, span, kind)
    return None


def _read_inside(text: str, span: Span, places: Sequence[tuple[Form, Seek]]) -> Canonical | None:
    for form, seek in places:
        inner = seek(text[slice(*span)])
        answer = _read(text, (span[0] + inner[0], span[0] + inner[1]), (form,)) if inner else None
        if answer is not None:
            return answer
    return None


def _guess(text: str, whole: Span, kind: AnswerKind) -> Canonical | None:
    """Without any marker: JSON in a fence, else what the last line ends on."""
    if kind == "json" or (kind == "auto" and "```" in text):
        return _read_inside(text, whole, _INSIDE["json"])
    line = trim(text, max(text.rfind("\n", *whole) + 1, whole[1] - _LINE), whole[1])
    return _read_inside(text, line, _AT_END.get(kind, ()))
