"""Every planted slip is caught and named, every right optimizer passes, and no wrong name is ever given."""

import os

import optax
import pytest

import funcnn as fnn
from experiments.benchmarks.catalogue.optimizers import PARAMS, RATE, RIGHT_OPTIMIZERS, SLIPS
from experiments.benchmarks.catalogue.unforeseen import UNFORESEEN
from funcnn.optimizercheck import check_optimizer

NAMES = ["sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw", "nadam", "adamax", "lion"]
BY_OPTAX = {
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
}
OURS = [name for name in NAMES if hasattr(fnn, name)]
# Some in every run, the rest with the many networks of `nox -s gradcheck`. What has no name takes longest to find none.
SOME = 1 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 3
NAMED = [case for case in UNFORESEEN if "unknown" not in case.causes][::SOME]


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


def test_names_are_unique():
    names = [case.name for case in (*SLIPS, *UNFORESEEN, *RIGHT_OPTIMIZERS)]
    assert len(set(names)) == len(names)


@by_name(SLIPS)
def test_slips_are_caught_and_named(case):
    report = check_optimizer(case.candidate, case.reference, PARAMS)
    assert not report.ok
    assert report.cause in case.causes, report.detail


@by_name(RIGHT_OPTIMIZERS)
def test_right_ones_pass(case):
    report = check_optimizer(case.candidate, case.reference, PARAMS)
    assert report.ok, report.to_text()


@by_name(NAMED)
def test_unforeseen_slips_are_caught_and_never_misnamed(case):
    report = check_optimizer(case.candidate, case.reference, PARAMS)
    assert not report.ok
    assert report.cause in case.causes | {"unknown"}, report.detail


@pytest.mark.parametrize("name", OURS)
def test_funcnn_s_are_optax_s(name):
    theirs = BY_OPTAX.get(name) or getattr(optax, name)
    report = check_optimizer(getattr(fnn, name)(RATE), theirs(RATE), PARAMS)
    assert report.ok, report.to_text()


def test_funcnn_s_follow_a_rate_that_changes():
    assert check_optimizer(fnn.nesterov, BY_OPTAX["nesterov"], PARAMS).ok


@pytest.mark.parametrize("name", ["adafactor", "amsgrad"])
def test_optax_s_are_themselves_though_no_recipe_is_known(name):
    optimizer = getattr(optax, name)(RATE)
    assert check_optimizer(optimizer, optimizer, PARAMS).ok
