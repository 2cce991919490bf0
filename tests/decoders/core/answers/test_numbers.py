"""Which spellings of numbers are equal, and which must stay apart."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decoders.core.answers.numbers import last_number, literal, number_key


@pytest.mark.parametrize(
    ("expected", "spellings"),
    [
        ("1234", ["1,234", "1234", "1\u2009234", "1\u00a0234", "1\u202f234", "1'234", "1_234"]),
        ("1234", ["1{,}234", r"1\,234", "1 234", "+1,234.00", "1234 clips", "$1,234$", "１２３４"]),
        ("1234567", ["1,234,567", "1.234.567", "1 234 567", "1.234567 million"]),
        (
            "2469/2",
            ["1,234.5", "1.234,50", "$1,234.50", "1234.5 dollars per month, which is a lot"],
        ),
        (
            "3/4",
            ["3/4", "0.75", ".75", "0.750", r"\frac{3}{4}", r"\dfrac34", "¾", "75e-2", "3 / 4"],
        ),
        ("5", [r"\tfrac{10}2", r"\frac5{1}"]),
        ("-5", ["-5", "−5", "minus 5", "Negative 5.0", "minus $5"]),
        ("3/4", [r"\(\frac{3}{4}\)", "6/8", "3/4 cup", r"\tfrac{6}{8}", "**0.75**", "7.5*10^{-1}"]),
        ("7/4", ["1 3/4", r"1\frac{3}{4}", "1¾", "1.75", "7/4"]),
        ("-7/4", ["-1 3/4", "−1.75", "-7/4", r"-\frac{7}{4}", r"\frac{-7}{4}", "–1.75"]),
        ("-5", ["-5", "−5", "- 5", "-$5", "$-5", "-5.0"]),
        ("0", ["0", "-0", "0.00", "0/5"]),
        ("1500", ["1.5e3", "1.5E+3", "1.5 × 10^3", r"1.5 \times 10^{3}", "1.5 x 10³", "1,500"]),
        ("1000000", ["1 million", "$1 million", "10^6", "10⁶", "1e6"]),
        ("18", ["$18", r"\$18", "18 dollars", "US$18", "18 USD", "€18", "18 km", r"18\text{ cm}"]),
        (
            "18",
            [
                "18km",
                "18 km/h",
                "18 m²",
                r"18 \mathrm{m}^2",
                "18°",
                r"18^\circ",
                "18 miles per hour",
            ],
        ),
        (
            "18",
            ["about 18", "≈ 18", "x = 18", "9 + 9 = 18", "18 (nine and nine)", "18 because 9+9=18"],
        ),
        ("25%", ["25%", r"25\%", "25 percent", "25 %", "25.0%"]),
        ("1000/3%", ["1000/3 %"]),
    ],
)
def test_equal_numbers_have_one_key(expected: str, spellings: list[str]) -> None:
    assert {text: number_key(text) for text in spellings} == dict.fromkeys(spellings, expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "-",
        "1,2345",
        "12,34",
        "3,5",
        "3, 4",
        "3:30",
        "3 pm",
        "3 p.m.",
        "5 May",
        "500 BC",
        "3/4/2025",
        "1/0",
        "5n",
        "2x",
        "2 pi",
        r"2\pi",
        "3 red and 4 blue",
        "3 or more",
        "1st",
        "--5",
        "-$-5",
        "x = 1, y = 2",
        "x = 1 or x = 2",
        "1e",
        "2^10",
        "3-5",
        "3–5",
        "2 500 ml jars",
        "5!",
        "1e1001",
        "1e999999999",
        "1e-999999999",
        "10^999999999",
        "9" * 2000,
        "1e" + "9" * 900,
        "5 × 3",
    ],
)
def test_what_is_no_single_number_has_none(text: str) -> None:
    expected = "5" if text == "5!" else None  # A shout; factorials cannot be told from it.
    assert number_key(text) == expected


@given(
    st.fractions(max_denominator=10**6), st.sampled_from(["{}", "${}$", " {} km.", r"\text{{{}}}"])
)
def test_every_fraction_is_read_exactly(value: Fraction, frame: str) -> None:
    assert number_key(frame.format(value)) == str(value)
    latex = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    assert number_key(latex) == str(value)


@given(
    st.decimals(
        allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9
    )
)
def test_every_decimal_is_read_with_and_without_separators(value: object) -> None:
    exact = str(Fraction(str(value)))
    assert number_key(f"{value}") == number_key(f"{value:,}") == number_key(f"${value:,}") == exact


@given(st.integers(-(10**18), 10**18), st.integers(-1000, 1000))
def test_scientific_notation_is_exact(mantissa: int, exponent: int) -> None:
    expected = str(mantissa * Fraction(10) ** exponent)
    assert number_key(f"{mantissa}e{exponent}") == expected
    assert number_key(f"{mantissa} * 10^{{{exponent}}}") == expected


def test_literals_have_bounds() -> None:
    assert literal("1e1000") == 10**1000
    assert literal("1e1001") is None
    assert literal("1" * 1000) == int("1" * 1000)
    assert literal("1" * 1001) is None
    assert literal("") is literal(".") is literal("e5") is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("from 3 to 12 apples", "12"),
        ("48-24", "24"),
        ("it fell to -7.", "-7"),
        ("he ran 5km.", "5"),
        ("it costs $1,500, or so", "$1,500"),
        ("use 1 3/4 cups", "1 3/4"),
        ("about 25% of it", "25%"),
        ("the 2nd one, x2", None),
        ("at 3:30", None),
        (r"it is \frac{3}{4} of", None),
        ("in all 1 000 000", None),
    ],
)
def test_last_number_of_a_line(line: str, expected: str | None) -> None:
    span = last_number(line)
    assert (span and line[slice(*span)]) == expected
