"""Intervals of medians by order statistics, and how few repeats give one."""

import argparse
from math import comb

import pytest

from benchmarks import medians


@pytest.mark.parametrize(("n", "skip"), [(6, 0), (8, 0), (9, 1), (12, 2), (25, 7)])
def test_an_interval_holds_the_median_in_95_of_100_cases(n: int, skip: int) -> None:
    def missed(left_out: int) -> float:
        return 2 * sum(comb(n, i) for i in range(left_out + 1)) / float(2**n)

    assert medians.interval_rank(n) == skip
    assert missed(skip) <= 0.05 < missed(skip + 1)


def test_the_middle_is_bounded_by_what_is_left() -> None:
    found = medians.middle([9.0, 1.0, 2.0, 3.0, 8.0, 4.0, 5.0, 6.0, 7.0])
    assert found == {"value": 5, "low": 2, "high": 8, "n": 9}
    assert medians.ratio(found) == "5.00 [2.00, 8.00]"


def test_five_give_no_interval() -> None:
    with pytest.raises(ValueError, match="5 give no 95% interval"):
        medians.middle([1.0] * 5)


def test_too_few_repeats_are_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=medians.repeats)
    assert parser.parse_args(["--rounds", "6"]).rounds == 6
    for given, said in (("5", "5 give no 95% interval"), ("x", "invalid literal")):
        with pytest.raises(SystemExit):
            parser.parse_args(["--rounds", given])
        assert said in capsys.readouterr().err
