"""The catalogue of planted bugs: each is caught and named on its leaf, and right gradients pass.

A tenth of the cases by default; all of them, in each of their dtypes, where ``FUNCNN_WHOLE_CATALOGUE=1``.
"""

import os
from collections import defaultdict

import pytest

import funcnn as fnn
from experiments.benchmarks.catalogue import BUGS, CASES, RIGHT

WHOLE = os.environ.get("FUNCNN_WHOLE_CATALOGUE") == "1"
EVERY = 10


def stratified(cases):
    """The sixth of every ten cases of a theme, with one of its dtypes, float64 and float32 in turn."""
    by_theme = defaultdict(list)
    for case in cases:
        by_theme[case.theme].append(case)
    chosen = [case for of_theme in by_theme.values() for case in of_theme[EVERY // 2 :: EVERY] or of_theme[:1]]
    return [(case, case.dtypes[place % len(case.dtypes)]) for place, case in enumerate(chosen)]


def in_every_dtype(cases):
    return [(case, dtype) for case in cases for dtype in case.dtypes]


def selected(cases):
    """Parameters of a test: the cases with the dtypes in which they are checked."""
    pairs = in_every_dtype(cases) if WHOLE else stratified(cases)
    names = [f"{case.name}-{dtype}" for case, dtype in pairs]
    return pytest.mark.parametrize(("case", "dtype"), pairs, ids=names)


def check(case, dtype):
    params, args = case.make(dtype)
    return fnn.check_gradients(case.loss_fn, case.grad_fn, params, *args)


@selected(BUGS)
def test_planted_bugs_are_caught_and_named(case, dtype):
    report = check(case, dtype)
    assert not report.ok
    failed = {leaf.path.lstrip("."): leaf.cause for leaf in report.leaves if not leaf.ok}
    found = set(failed.values()) if case.leaf is None else {failed.get(case.leaf)}
    assert found & case.causes, str(report)


@selected(RIGHT)
def test_right_gradients_pass(case, dtype):
    report = check(case, dtype)
    assert report.ok, str(report)


def test_the_sample_has_every_theme_and_both_dtypes():
    for cases in (BUGS, RIGHT):
        sample = stratified(cases)
        assert {case.theme for case, _ in sample} == {case.theme for case in cases}
        assert {dtype for _, dtype in sample} == {"float64", "float32"}
        assert abs(len(sample) - len(cases) / EVERY) <= len({case.theme for case in cases})


def test_names_are_unique():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
