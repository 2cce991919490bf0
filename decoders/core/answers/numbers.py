r"""Numbers as people and models write them, reduced to exact fractions.

Reads thousands separators (1,234; 1'234; 1_234; thin or no-break spaces; 1{,}234), European
numbers only where nothing else is possible (1.234,56), every minus sign, currencies, percent,
3/4, \frac{3}{4}, 1 3/4, ½, 1.5e3, 1.5 × 10^3, "3 million" and a unit behind the number.

What stands and what is dropped: a currency and a unit are dropped, since all paths answer one
question ("$18" = "18 dollars" = "18"), without conversion (1 km and 1 m vote together). Percent
stays (25% is not 25 and not 0.25). Words that change the value or the sort of answer (am, pm,
BC, months, pi, "or") make it no number. Plain `3,5` is a list or a decimal, so it is no number.
Groups behind plain spaces count only where nothing else is written: "1 000", not "2 500 ml jars".
"""

import re
import unicodedata
from fractions import Fraction

_LONGEST = 1000
_BIGGEST_EXPONENT = 1000

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SIGNS = str.maketrans({"−": "-", "–": "-", "﹣": "-", "－": "-", "×": "*", "·": "*", "≈": "="})
_GAP = re.compile(r"(?<=\d)(?:[\u00a0\u2007\u2009\u202f'’_]|\\,)(?=\d{3}(?!\d))")
_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+")
_FRAC = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(-?\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
_SIGN_WORD = re.compile(r"\b(?:minus|negative)\s+(?=[$€£¥₹.\d])", re.IGNORECASE)
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_LATEX = (
    ("{,}", ","), ("\\!", ""), ("\\,", " "), ("\\;", " "), ("\\ ", " "), ("~", " "),
    ("\\left", ""), ("\\right", ""), ("\\(", ""), ("\\)", ""), ("\\[", ""), ("\\]", ""),
    ("\\%", "%"), ("\\$", " "), ("$", " "), ("\\times", "*"), ("\\cdot", "*"),
    ("\\approx", "="), ("^\\circ", "°"), ("^{\\circ}", "°"), ("\\circ", "°"), ("\\degree", "°"),
)  # fmt: skip

_NUMBER = (
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d*)?"
    r"|\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?!\d)"
    r"|\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
)
_EUROPEAN = re.compile(r"\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}")
_LITERAL = re.compile(r"(\d*\.?\d*)(?:[eE]([+-]?\d+))?")
_RATIO = re.compile(r"(?:(\d+)\s+)?(\d+)\s*/\s*(\d+)")
_SCIENTIFIC = re.compile(rf"(?:({_NUMBER})\s*[*x]\s*)?10\s*\^\s*\{{?\s*([+-]?\d+)\s*\}}?")
_DECIMAL = re.compile(_NUMBER)
_ABOUT = re.compile(
    r"\A\s*(?:(?:about|approximately|approx\.?|around|roughly|exactly|only|just|=)\s*)*",
    re.IGNORECASE,
)
_SPACED_GROUPS = re.compile(r"[-+]? ?\d{1,3}(?: \d{3})+")
_SIGN = re.compile(r"([-+]?)\s*(?:US\b|USD\b|EUR\b|GBP\b|Rs\b\.?)?\s*[€£¥₹₩]?\s*([-+]?)\s*")
_PERCENT = re.compile(r"\s*(?:%|percent\b|per cent\b|percentage points?\b)", re.IGNORECASE)
_SCALE = re.compile(r"\s+(hundred|thousand|million|billion|trillion)\b", re.IGNORECASE)
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_CLAUSE = re.compile(
    r"\s\(|\s[—-]\s|;|,\s+(?!and\b|or\b)(?=[A-Za-z])"
    r"|,?\s(?:because|since|as|which|so|where|when|if|after)\b",
    re.IGNORECASE,
)
_UNIT_PHRASE = re.compile(r"\s*[^\W\d_]|\s*°")
_WORD = r"(?:°?[^\W\d_](?:[^\W\d_]|[.'’])*|°)(?:\^\{?-?\d\}?)?"
_WORDS = re.compile(rf"\s*{_WORD}(?:[\s/*-]+{_WORD})*\s*")
# Single letters that algebra uses as variables (a, b, n, t, x) are left out: 5n is not 5.
_UNIT_NAMES = """
km m cm mm nm µm μm mi ft in yd kg g mg µg lb lbs oz l ml dl cl s sec secs ms min mins h hr hrs
kj kwh wh w kw mw ma pa kpa hz khz mhz ghz °c °f ° mph kph kmh kb mb gb tb rad deg mol usd eur gbp
"""
_VALUE_WORDS = """
am pm bc ad bce ce pi sqrt and or to plus minus over out not squared cubed tenths hundredths
thousandths halves thirds quarters fifths january february march april may june july august
september october november december jan feb mar apr jun jul aug sep oct nov dec
"""
_UNITS = frozenset(_UNIT_NAMES.split())
_NOT_UNITS = frozenset(_VALUE_WORDS.split())
_TOKEN = re.compile(
    r"(?<![\w.,/'^:{\u2009\u202f\u00a0])(?<!\d )"
    r"(?:[-+−–]\s?(?=[$€£¥₹\d.]))?[$€£¥₹]?(?:\d++\s(?=\d++/\d))?"
    r"\.?\d[\d.,/'\u2009\u202f\u00a0]*+(?:[eE][-+]?\d++)?(?:\s?\\?%)?"
    r"(?!:?\d|\^| \d{3}\b|(?!(?:k?m|[cmn]m|[km]?g|mph|h|s|min|ml|l)\b)[^\W\d_])"
)


def number_key(content: str) -> str | None:
    """The canonical form of content that is one number, '3/4' or '25%'; None if it is not."""
    if len(content) > _LONGEST:
        return None
    plain = plain_number_text(content)
    plain = plain.replace(" ", "") if _SPACED_GROUPS.fullmatch(plain) else plain
    return _signed(plain) or _right_hand_side(plain)


def literal(text: str) -> Fraction | None:
    """A decimal literal as an exact fraction; None beyond 1000 digits or an exponent of 1000."""
    match = _LITERAL.fullmatch(text)
    if not match or len(text) > _LONGEST or not any(map(str.isdigit, match.group(1))):
        return None
    exponent = (match.group(2) or "0").lstrip("+")
    if len(exponent) > 5 or abs(int(exponent)) > _BIGGEST_EXPONENT:
        return None
    return Fraction("0" + match.group(1).rstrip(".")) * Fraction(10) ** int(exponent)


def last_number(text: str) -> tuple[int, int] | None:
    """The span of the last number in prose, None without one. Pass a line, not a book."""
    span = None
    for match in _TOKEN.finditer(text):
        token = match.group().rstrip(".,/' \u2009\u202f\u00a0")
        span = match.start(), match.start() + len(token)
    return span if span and number_key(text[slice(*span)]) else None


def plain_number_text(content: str) -> str:
    """ASCII spelling of a number: typography and LaTeX around it resolved."""
    text = _GAP.sub("", _FRAC.sub(r" \1\2/\3\4", content).translate(_SIGNS))
    text = _RAISED.sub(lambda found: "^" + found.group().translate(_SUPERSCRIPTS), text)
    text = unicodedata.normalize("NFKC", "".join(map(_spaced, text))).replace("\u2044", "/")
    text = _SIGN_WORD.sub("-", _WRAPPED.sub(r" \1", text))
    for latex, meant in _LATEX:
        text = text.replace(latex, meant)
    return text.strip(" \t\r\n*_`\"'“”").rstrip(".,;:!?").strip(" *_`\"'“”")


def _spaced(letter: str) -> str:
    """A vulgar fraction behind a space, or 1½ would become 11/2."""
    return " " + letter if unicodedata.decomposition(letter).startswith("<fraction>") else letter


def _signed(plain: str) -> str | None:
    plain = _ABOUT.sub("", plain, count=1)
    sign = _SIGN.match(plain)
    if not sign or (sign.group(1) and sign.group(2)):
        return None
    found = _magnitude(plain[sign.end() :])
    if found is None:
        return None
    value, rest = found
    if "-" in sign.groups():
        value = -value
    scale = _SCALE.match(rest)
    if scale:
        value, rest = value * 10 ** _SCALES[scale.group(1).lower()], rest[scale.end() :]
    percent = _PERCENT.match(rest)
    rest = rest[percent.end() :] if percent else rest
    return f"{value}{'%' if percent else ''}" if _is_unit(rest) else None


def _right_hand_side(plain: str) -> str | None:
    """The number behind the last '=' of 'x = 5' or '48 + 24 = 72', but not of 'x = 1, y = 2'."""
    clause = _CLAUSE.search(plain)
    end = clause.start() if clause else len(plain)
    left, equals, right = plain[:end].rpartition("=")
    if not equals or (plain[end : end + 1] == "," and "=" in plain[end:]):
        return None
    if re.search(r"[,;<>]|\b(?:and|or)\b", left):
        return None
    return _signed(right)


def _magnitude(text: str) -> tuple[Fraction, str] | None:
    """The unsigned number that `text` starts with, and what follows it."""
    ratio = _RATIO.match(text)
    if ratio:
        whole, top, bottom = (int(part or 0) for part in ratio.groups())
        return (Fraction(top, bottom) + whole, text[ratio.end() :]) if bottom else None
    power = _SCIENTIFIC.match(text)
    if power:
        value, factor = _decimal(power.group(1) or "1"), literal("1e" + power.group(2))
        return (value * factor, text[power.end() :]) if value is not None and factor else None
    decimal = _DECIMAL.match(text)
    value = _decimal(decimal.group()) if decimal else None
    return (value, text[decimal.end() :]) if decimal and value is not None else None


def _decimal(token: str) -> Fraction | None:
    if _EUROPEAN.fullmatch(token):
        return literal(token.replace(".", "").replace(",", "."))
    return literal(token.replace(",", ""))


def _is_unit(rest: str) -> bool:
    """Whether what follows a number leaves its value alone: nothing, a unit or a noun, a clause."""
    clause = _CLAUSE.search(rest)
    rest = (rest[: clause.start()] if clause else rest).rstrip()
    if not rest:
        return True
    if not _UNIT_PHRASE.match(rest) or not _WORDS.fullmatch(rest.rstrip(".!?")):
        return False
    words = [word.split("^")[0].lower() for word in re.split(r"[\s/*-]+", rest) if word]
    words = [word.replace(".", "").rstrip("!?") for word in words]
    if any(word in _NOT_UNITS or (len(word) == 1 and word not in _UNITS | {"a"}) for word in words):
        return False
    return rest[0].isspace() or words[0] in _UNITS
