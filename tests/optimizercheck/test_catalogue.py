"""The catalogue of optimizers: mistakes are detected and named right, and right optimizers pass.

By default one case of every cause and of every way in which an optimizer runs is checked.
``FUNCNN_WHOLE_CATALOGUE=1`` checks all cases (``nox -s gradcheck``).
"""

import os

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from experiments.benchmarks.catalogue.optimizers import PARAMS, RATE, RIGHT_OPTIMIZERS, WRONG_OPTIMIZERS
from experiments.benchmarks.catalogue.unforeseen import UNFORESEEN
from experiments.benchmarks.optimizer_detection import BFLOAT16_CASES, case_params
from funcnn.optimizercheck import check_optimizer

IS_WHOLE = os.environ.get("FUNCNN_WHOLE_CATALOGUE") == "1"
# The check adds a scalar, so that there are two leaves. Each further leaf costs a quarter of the compilation.
LEAVES = tuple(PARAMS) if IS_WHOLE else ("w",)
CASE_PARAMS = {name: PARAMS[name] for name in LEAVES}

# name: optax's optimizer of the same learning rate.
OPTAX = {
    name: getattr(optax, name) for name in ("sgd", "rmsprop", "adagrad", "adam", "adamw", "nadam", "adamax", "lion")
}
OPTAX |= {
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "nesterov": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
}

# These optimizers run in Python, refuse a schedule or another tree, or compute in another dtype or order. The remaining
# ones are the reference's formula, written in another way.
SPECIAL = {
    "velocity_in_float32", "velocity_on_the_object", "velocity_in_a_flat_dictionary", "new_parameters_less_the_old",
    "adam_with_folded_corrections", "adam_that_takes_no_schedule", "clipped_by_hand", "every_two_steps_again",
}  # fmt: skip


def first_of_each_cause(cases):
    causes, kept = {"unknown"}, []
    for case in cases:
        if not case.causes <= causes:
            kept.append(case)
        causes |= case.causes
    return kept


def check(case):
    params = case_params(case)
    return check_optimizer(case.candidate, case.reference, {name: params[name] for name in LEAVES})


def by_name(cases):
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


# An unknown cause takes longest, because every change is tried before it is reported: only the whole catalogue has it.
NAMED = [case for case in UNFORESEEN if "unknown" not in case.causes]
SELECTED = first_of_each_cause((*WRONG_OPTIMIZERS, *NAMED))


def test_names_are_unique():
    names = [case.name for case in (*WRONG_OPTIMIZERS, *UNFORESEEN, *RIGHT_OPTIMIZERS)]
    assert len(set(names)) == len(names)


@by_name([case for case in WRONG_OPTIMIZERS if IS_WHOLE or case in SELECTED])
def test_mistakes_are_detected_and_named(case):
    report = check(case)
    assert not report.ok, report.to_text()
    assert report.cause in case.causes, report.detail


@by_name([case for case in RIGHT_OPTIMIZERS if IS_WHOLE or case.name in SPECIAL])
def test_right_optimizers_pass(case):
    report = check(case)
    assert report.ok, report.to_text()


@pytest.mark.thorough
@by_name(UNFORESEEN if IS_WHOLE else [case for case in NAMED if case in SELECTED])
def test_unforeseen_mistakes_are_detected_and_never_misnamed(case):
    report = check(case)
    assert not report.ok, report.to_text()
    assert report.cause in case.causes | {"unknown"}, report.detail


@by_name([case for case in (*WRONG_OPTIMIZERS, *UNFORESEEN) if case.name in BFLOAT16_CASES])
def test_mistakes_in_bfloat16_are_none_in_float32(case):
    assert check_optimizer(case.candidate, case.reference, CASE_PARAMS).ok


def test_the_default_part_has_every_cause():
    assert {cause for case in SELECTED for cause in case.causes} == {
        cause for case in (*WRONG_OPTIMIZERS, *NAMED) for cause in case.causes
    }


def test_funcnn_optimizers_match_optax():
    """All of them in one program: every leaf has its own optimizer."""
    params = {name: jnp.asarray(np.linspace(-1.5, 2.0, 3)) for name in OPTAX}
    labels = {name: name for name in OPTAX}
    ours = optax.multi_transform({name: getattr(fnn, name)(RATE) for name in OPTAX}, labels)
    theirs = optax.multi_transform({name: optimizer(RATE) for name, optimizer in OPTAX.items()}, labels)
    report = check_optimizer(ours, theirs, params)
    assert report.ok, report.to_text()


@pytest.mark.skipif(not IS_WHOLE, reason="one program checks them all by default")
@pytest.mark.parametrize("name", OPTAX)
def test_each_funcnn_optimizer_matches_optax(name):
    report = check_optimizer(getattr(fnn, name)(RATE), OPTAX[name](RATE), PARAMS)
    assert report.ok, report.to_text()


def test_funcnn_optimizers_match_optax_under_a_changing_rate():
    assert check_optimizer(fnn.nesterov, OPTAX["nesterov"], CASE_PARAMS).ok


@pytest.mark.parametrize("name", ["adafactor", "amsgrad"] if IS_WHOLE else ["adafactor"])
def test_an_optimizer_without_a_known_rule_equals_itself(name):
    optimizer = getattr(optax, name)(RATE)
    assert check_optimizer(optimizer, optimizer, CASE_PARAMS).ok
