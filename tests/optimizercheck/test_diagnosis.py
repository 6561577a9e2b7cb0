"""The diagnosis of simulated updates: mutations, fitted coefficients and unknown causes, in NumPy alone."""

from typing import get_args

import numpy as np
import pytest

from experiments.benchmarks.catalogue.optimizers import PARAMS
from funcnn.optimizercheck.diagnosis import diagnose
from funcnn.optimizercheck.mutations import mutations
from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.sequences import STEPS, make_problem
from funcnn.optimizercheck.update_rules import UpdateRule, simulate

PROBLEM = make_problem(PARAMS, extra_leaves=False)
SPACING = float(np.finfo(np.float64).eps)
PLAIN = UpdateRule(np.full((len(PROBLEM.names), STEPS), 0.01))
ADAM = PLAIN._replace(
    first="mean", b1=0.9, second="mean", b2=0.999, eps=1e-8, first_correction=0, second_correction=0,
)  # fmt: skip
RULES = {
    "descent": PLAIN._replace(coupled=0.1),
    "momentum": PLAIN._replace(first="sum", b1=0.9, coupled=0.1, clip="global norm", bound=1.0),
    "rmsprop": PLAIN._replace(second="mean", b2=0.9, eps_root=1e-8, velocity_decay=0.5),
    "rmsprop, corrected": PLAIN._replace(second="mean", b2=0.9, eps_root=1e-8, second_correction=0),
    "adagrad": PLAIN._replace(second="sum", initial_second=0.1, eps_root=1e-7),
    "adam": ADAM,
    "adamw": ADAM._replace(decoupled=0.1),
    "lion": PLAIN._replace(first="lion", b1=0.9, b2=0.99, decoupled=0.1),
}

# rule, changed fields, cause
FITTED = [
    ("descent", {"coupled": 0.03}, "decay_size"),
    ("rmsprop", {"velocity_decay": 0.8}, "coefficient"),
    ("adagrad", {"second": "mean", "b2": 0.9}, "accumulation"),
]


def diagnosis_of(updates, rule):
    return diagnose(rule, PROBLEM, updates, simulate(rule, PROBLEM).updates, SPACING)


@pytest.mark.parametrize("name", RULES)
def test_mutations_have_a_known_cause_and_their_own_detail(name):
    found = mutations(RULES[name])
    assert {mutation.cause for mutation in found} <= set(get_args(OptimizerCause))
    details = [mutation.detail for mutation in found]
    assert len(set(details)) == len(details)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("momentum", "decay_and_clipping_order"),
        ("momentum", "decay_coupling"),
        ("rmsprop, corrected", "epsilon_before_correction"),
    ],
)
def test_a_mutation_is_diagnosed(name, cause):
    rule = RULES[name]
    mutation = next(mutation for mutation in mutations(rule) if mutation.cause == cause)
    assert diagnosis_of(simulate(mutation.rule, PROBLEM).updates, rule).cause == cause


@pytest.mark.parametrize(("name", "changes", "cause"), FITTED, ids=[f"{row[0]} {[*row[1]][-1]}" for row in FITTED])
def test_another_coefficient_is_fitted(name, changes, cause):
    changed = simulate(RULES[name]._replace(**changes), PROBLEM).updates
    assert diagnosis_of(changed, RULES[name]).cause == cause


def test_other_updates_have_an_unknown_cause():
    updates = np.random.default_rng(0).standard_normal(PROBLEM.gradients.shape)
    assert diagnosis_of(updates, PLAIN).cause == "unknown"
