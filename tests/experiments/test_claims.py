"""Verdicts: the interval against the threshold, and invalid values."""

import numpy as np
import pytest
from scipy import stats

from experiments.harness.claims import Claim, Section, format_number, format_threshold, interval, judge


def claim(**given):
    return Claim(name="one", sentence="One.", section=Section.WHAT, quantity="units", **given)


NORMAL = np.random.default_rng(0).normal(1.0, 0.1, 200)


@pytest.mark.parametrize(
    ("bounds", "word"),
    [
        ({"at_least": 0.9}, "holds"),
        ({"at_least": 1.1}, "fails"),
        ({"at_least": float(NORMAL.mean())}, "undecided"),
        ({"at_most": 1.1}, "holds"),
        ({"at_most": 0.9}, "fails"),
        ({"at_least": 0.95, "at_most": 1.05}, "holds"),
        ({"at_least": 0.5, "at_most": 0.95}, "fails"),
    ],
)
def test_a_verdict_asks_for_the_whole_interval(bounds, word):
    assert judge(claim(**bounds), NORMAL).verdict == word


def test_the_interval_of_a_mean_is_that_of_students_t_where_values_are_normal():
    low, high = interval(NORMAL)
    expected = stats.t.interval(0.95, len(NORMAL) - 1, NORMAL.mean(), stats.sem(NORMAL))
    np.testing.assert_allclose((low, high), expected, atol=0.002)


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_intervals_cover_the_truth_as_often_as_they_say(statistic):
    draws = np.random.default_rng(1).normal(size=(200, 60))
    covered = np.mean([low <= 0 <= high for low, high in (interval(values, statistic) for values in draws)])
    assert 0.88 <= covered <= 0.99


def test_a_share_that_no_seed_shows_is_still_uncertain():
    found = judge(claim(at_most=0.05, statistic="share"), np.zeros(20))
    assert (found.estimate, found.low, found.verdict) == (0, 0, "undecided")
    # 1 − 0.025^(1/20): Clopper and Pearson where nothing was seen.
    assert found.high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert judge(claim(at_most=0.05, statistic="share"), np.zeros(200)).verdict == "holds"


def test_an_exact_figure_is_its_own_interval():
    found = judge(claim(at_most=0.25, statistic="exact"), 0.25)
    assert (found.low, found.high, found.verdict) == (0.25, 0.25, "holds")


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"at_most": 1}, [0.5, np.nan]),
        ({"at_most": 1}, []),
        ({"at_most": 1}, [0.5]),
        ({"at_most": 1, "statistic": "exact"}, [0.5, 0.5]),
        ({"at_most": 1, "statistic": "share"}, [0.5, 1]),
    ],
)
def test_what_cannot_be_judged_is_refused(given, values):
    with pytest.raises(ValueError, match="expected"):
        judge(claim(**given), values)


@pytest.mark.parametrize("bounds", [{}, {"at_least": 2, "at_most": 1}])
def test_a_claim_without_a_threshold_is_refused(bounds):
    with pytest.raises(ValueError, match="expected at_least ≤ at_most"):
        claim(**bounds)


@pytest.mark.parametrize(
    ("bounds", "words"),
    [
        ({"at_most": 1e-9}, "at most 1·10⁻⁹"),
        ({"at_least": 0.96}, "at least 0.96"),
        ({"at_least": -1, "at_most": 1}, "−1 to 1"),
    ],
)
def test_a_threshold_in_words(bounds, words):
    assert format_threshold(claim(**bounds)) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.97424, "0.9742"), (20000, "20,000"), (-0.5, "−0.5"), (6.828e-15, "6.828·10⁻¹⁵"), (0, "0"), (-0.0, "0")],
)
def test_numbers_as_people_read_them(value, words):
    assert format_number(value) == words


@pytest.mark.parametrize(
    ("value", "digits", "words"),
    [(4.49e-14, 2, "4.5·10⁻¹⁴"), (0.0, 1, "0"), (2.61e-4, 2, "0.00026"), (2.1e8, 1, "2·10⁸"), (float("nan"), 1, "nan")],
)
def test_numbers_have_as_many_digits_as_are_asked_for(value, digits, words):
    assert format_number(value, digits) == words
