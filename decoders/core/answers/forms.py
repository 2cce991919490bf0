"""The forms an answer takes beside a number: a choice letter, a JSON value, plain text.

Each function takes the answer alone, without its marker, and returns its canonical form or None.
"""

import json
import re
import unicodedata

from decoders.core.answers.marks import Span, fenced, json_end
from decoders.core.answers.numbers import literal

_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\s{0,4}\{([^{}]*)\}")
_OPTION = r"(?:(?:option|choice|answer)\s{1,4})?"
_ALONE = re.compile(rf"{_OPTION}[(\[]?([A-Ja-j])[)\]]?[.:]?", re.IGNORECASE)
_BEFORE_TEXT = re.compile(r"(?:[(\[]([A-Ja-j])[)\]]|([A-J])[.):])[*_]{0,2}\s{1,8}(?=\S)")
_ANOTHER = re.compile(r"(?:\A|,|\band\b|\bor\b|&)\s*[(\[]?[A-J][)\]]?(?:\s|,|\Z)")
_LAST_CHOICE = re.compile(
    r"\((?P<paren>[A-J])\)|\b(?:option|choice)\s(?P<named>[A-J])\b"
    r"|^[ \t*]{0,8}(?P<leading>[A-J])[.):]|\b(?P<final>[A-J])[.)*\s]*\Z",
    re.MULTILINE,
)
_FINAL_CHOICE = re.compile(
    r"(?:(?<!\w)\((?P<paren>[A-J])\)"
    r"|(?<!or\s)(?<!and\s)\b(?:[Oo]ption|[Cc]hoice)\s(?:is\s)?[*_]{0,2}(?P<named>[A-J]))[.*_\s]*\Z"
)
_LOOSE = str.maketrans("", "", "$")
_SPACING = re.compile(r"\\(?:left|right|displaystyle|quad|[!,;: ()\[\]])")
_MATHEMATICAL = re.compile(r"[\\=^{}<>+*/]")
_SLACK = re.compile(r" (?=[,)\]])|(?<=[,(\[]) ")
_ARTICLE = re.compile(r"(?:the|an?)\s+")
_ATTEMPTS = 256


def choice_key(content: str) -> str | None:
    """'B' for 'B', '(B)', 'b)', 'B.', 'option B', '(B) Paris', 'B: Paris'; None for '(A), (C)'."""
    if len(content) > 1000:
        return None
    bare = _WRAPPED.sub(r"\1", content).replace("$", "").strip(" \t\r\n*_`\"'")
    alone = _ALONE.fullmatch(bare)
    if alone:
        letter = alone.group(1)
        # A lone small letter is a variable or an article; in brackets or named it is a choice.
        return letter.upper() if letter.isupper() or len(bare) > 1 else None
    led = _BEFORE_TEXT.match(bare)
    if led and not _ANOTHER.search(bare[led.end() :]):
        return str(led.group(1) or led.group(2)).upper()
    return None


def asked_choice_key(content: str) -> str | None:
    """The same where nothing but a choice was asked for: a lone small letter is one too."""
    return choice_key(content.upper() if len(content.strip()) == 1 else content)


def last_choice(text: str) -> Span | None:
    """The span of the last choice letter that is marked as one, as in 'so (B) is right'."""
    span = None
    for match in _LAST_CHOICE.finditer(text):
        span = match.span(match.lastgroup or 0)
    return span


def final_choice(text: str) -> Span | None:
    """The span of a choice letter that ends the text, in brackets or behind "option (is)"."""
    match = _FINAL_CHOICE.search(text)
    return match.span(match.lastgroup or 0) if match else None


def json_key(content: str) -> str | None:
    """One rendering for equal JSON objects or arrays: keys sorted, 1.0 = 1 = 1e0, no spaces."""
    if content[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(content, parse_float=_exact, parse_int=_exact, parse_constant=_refuse)
        return _rendered(value)
    except (ValueError, RecursionError):
        return None


def last_json(text: str) -> Span | None:
    """The span of the last JSON object: in a fence, else in prose (at most 256 tries)."""
    for low, high in fenced(text):
        if json_key(text[low:high]) is not None:
            return low, high
    span, start = None, text.find("{")
    for _ in range(_ATTEMPTS):
        if start < 0:
            break
        end = json_end(text, start)
        span = span if end is None else (start, end)
        start = text.find("{", start + 1 if end is None else end)
    return span


def text_key(content: str) -> str | None:
    """Text without what does not matter: case, white space, quotes, articles, final stops."""
    plain = unicodedata.normalize("NFKC", content).replace("dfrac", "frac").replace("tfrac", "frac")
    plain = _SPACING.sub(" ", _WRAPPED.sub(r"\1", plain)).translate(_LOOSE).casefold()
    plain = _SLACK.sub("", " ".join(plain.strip(" *_`\"'“”‘’.,;:!?\n\t\r").split()))
    plain = _ARTICLE.sub("", plain, count=1) if _ARTICLE.match(plain) else plain
    if _MATHEMATICAL.search(plain):
        plain = plain.replace(" ", "")
    return plain if plain and plain.count("{") == plain.count("}") else None


def yes_no_key(content: str) -> str | None:
    """'yes', 'no', 'true' or 'false' where the content is nothing else."""
    key = text_key(content) if len(content) <= 40 else None
    return key if key in ("yes", "no", "true", "false") else None


class _Exact(str):
    """A JSON number in canonical spelling, told apart from a JSON string by its type."""


def _exact(token: str) -> _Exact:
    value = literal(token.lstrip("-"))
    if value is None:
        raise ValueError("a number too long to compare")
    return _Exact(-value if token.startswith("-") else value)


def _refuse(token: str) -> None:
    raise ValueError(f"{token} is not JSON")


def _rendered(value: object) -> str:
    if isinstance(value, _Exact):
        return str(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(key)}:{_rendered(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_rendered, value)) + "]"
    return json.dumps(value)
