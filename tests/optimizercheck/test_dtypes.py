"""The dtypes of the parameters decide; dtypes that no parameter has are reported as not checked where they differ."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmarks.catalogue.hand_rolled import RATE, adam, corrected, transformation, tree_map, zeros
from experiments.benchmarks.catalogue.optimizers import MOMENTUM
from funcnn._numerics.precision import enable_x64
from funcnn.optimizercheck import check_optimizer

BFLOAT16, FLOAT16, FLOAT32, FLOAT64 = (np.dtype(dtype) for dtype in ("bfloat16", "float16", "float32", "float64"))


def params(dtype):
    return {"w": jnp.array([[0.5, -1.5], [2.0, 0.25]], dtype)}


def momentum(gather=lambda v, g: 0.9 * v + g, state_dtype=None, update_dtype=None):
    """Momentum that computes in the gradient's dtype, or in another."""

    def init(params):
        return tree_map(lambda p: jnp.zeros(p.shape, state_dtype or p.dtype), params)

    def update(grads, v, params=None):
        v = tree_map(lambda v, g: gather(v, g.astype(state_dtype or g.dtype)).astype(v.dtype), v, grads)
        return tree_map(lambda v, g: (-RATE * v).astype(update_dtype or g.dtype), v, grads), v

    return transformation(init, update)


def momentum_that_refuses(*dtypes, gather=lambda v, g: 0.9 * v + g):
    def refusing(v, g):
        if g.dtype in dtypes:
            raise TypeError(f"{g.dtype} is not supported")
        return gather(v, g)

    return momentum(refusing)


def twice_the_gradient_in(*dtypes):
    return momentum(lambda v, g: 0.9 * v + (2 if g.dtype in dtypes else 1) * g)


def state_in_float32_at_the_start():
    def update(grads, v, params=None):
        v = tree_map(lambda v, g: 0.9 * v + g, v, grads)
        return tree_map(lambda v: -RATE * v, v), v

    return transformation(lambda params: tree_map(lambda p: jnp.zeros(p.shape, jnp.float32), params), update)


PROMOTED = momentum(state_dtype=FLOAT32, update_dtype=FLOAT32)
INJECTED = optax.inject_hyperparams(optax.adam)(learning_rate=RATE)
ADAM = optax.adam(RATE)

# name: candidate, reference, the dtype of the parameters, the dtypes that are not checked with the reason.
RIGHT = {
    "promotes everything to float32": (
        PROMOTED, MOMENTUM, FLOAT32,
        {"float64": r"float32 of shape \(2, 2\) at \['w'\], where float64", "bfloat16": r"at \['w'\], where bfloat16"},
    ),
    "raises for bfloat16": (
        momentum_that_refuses(BFLOAT16), MOMENTUM, FLOAT32, {"bfloat16": "TypeError: bfloat16 is not supported"},
    ),
    "meant for float32": (
        momentum_that_refuses(BFLOAT16, FLOAT16, FLOAT64), MOMENTUM, FLOAT32,
        {"float64": "TypeError: float64 is not supported", "bfloat16": "TypeError"},
    ),
    "meant for float16": (
        momentum_that_refuses(BFLOAT16, FLOAT32, FLOAT64), MOMENTUM, FLOAT16,
        {"float64": "TypeError", "float32": "TypeError", "bfloat16": "TypeError"},
    ),
    "meant for bfloat16": (
        momentum_that_refuses(FLOAT32, FLOAT64), MOMENTUM, BFLOAT16, {"float64": "TypeError", "float32": "TypeError"},
    ),
    "computes in float16 whatever comes": (
        momentum(state_dtype=FLOAT16), MOMENTUM, FLOAT16,
        {"float64": "computes in float16 there too", "float32": "differs", "bfloat16": "differs"},
    ),
    "computes otherwise in float64": (
        twice_the_gradient_in(FLOAT64), MOMENTUM, FLOAT32, {"float64": "computes something else in it than in float32"},
    ),
    "computes otherwise in bfloat16": (
        twice_the_gradient_in(BFLOAT16), MOMENTUM, FLOAT32, {"bfloat16": "the candidate differs in it"},
    ),
    "a state in float32 that float64 promotes": (
        state_in_float32_at_the_start(), MOMENTUM, FLOAT32,
        {"float64": r"state: float64 of shape \(2, 2\) at \['w'\]", "bfloat16": "updates: float32"},
    ),
    "hyperparameters in the state": (INJECTED, ADAM, FLOAT32, {"bfloat16": "the candidate differs in it"}),
    "further arguments": (optax.with_extra_args_support(ADAM), ADAM, FLOAT32, {}),
}  # fmt: skip

# name: candidate, reference, the dtype of the parameters, the cause.
WRONG = {
    "promotes bfloat16": (PROMOTED, MOMENTUM, BFLOAT16, "dtype"),
    "promotes float16": (PROMOTED, MOMENTUM, FLOAT16, "dtype"),
    "computes otherwise in float32": (twice_the_gradient_in(FLOAT32), MOMENTUM, FLOAT32, "unstable"),
    "meant for float32, with another μ": (
        momentum_that_refuses(BFLOAT16, FLOAT64, gather=lambda v, g: 0.8 * v + g), MOMENTUM, FLOAT32, "coefficient",
    ),
    "hyperparameters in a state in bfloat16": (INJECTED, ADAM, BFLOAT16, "unstable"),
    "float16 without a bias correction": (
        adam(mean_hat=lambda m, b, t: m), adam(mean_hat=corrected), FLOAT16, "bias_correction_missing",
    ),
}  # fmt: skip


def not_checked(report):
    return {
        item.name.rsplit(" ", 1)[-1]: item.detail
        for item in report.properties
        if item.ok is None and item.name != "a changing learning rate"
    }


@pytest.mark.parametrize(("candidate", "reference", "dtype", "reasons"), RIGHT.values(), ids=RIGHT)
def test_other_dtypes_are_not_checked(candidate, reference, dtype, reasons):
    report = check_optimizer(candidate, reference, params(dtype))
    assert report.ok, report.to_text()
    assert report.cause is None
    found = not_checked(report)
    assert set(found) == set(reasons), found
    for name, words in reasons.items():
        what = "counted" if "differs" in words else "checked"
        assert found[name].startswith(f"not {what}, because the candidate")
        assert found[name].endswith(f"your parameters are {dtype.name}")
        assert re.search(words, found[name]), found[name]
    compared = {row.name.rsplit(" ", 1)[-1] for row in report.sequences if ", in " in row.name}
    assert dtype.name in compared
    assert not compared & (set(reasons) - {"float64"})


@pytest.mark.parametrize(("candidate", "reference", "dtype", "cause"), WRONG.values(), ids=WRONG)
def test_the_dtype_of_the_parameters_decides(candidate, reference, dtype, cause):
    report = check_optimizer(candidate, reference, params(dtype))
    assert (report.ok, report.cause) == (False, cause), report.to_text()


def test_not_checked_is_not_shown_as_passed():
    text = check_optimizer(PROMOTED, MOMENTUM, params(FLOAT32)).to_text()
    assert "–    bfloat16: not checked, because" in text
    assert "yes  bfloat16" not in text
    assert "Not checked: " in text


def test_float64_is_judged_where_it_is_given():
    with enable_x64(True):
        assert check_optimizer(PROMOTED, MOMENTUM, params(FLOAT64)).cause == "dtype"
        report = check_optimizer(momentum_that_refuses(BFLOAT16, FLOAT32), MOMENTUM, params(FLOAT64))
    assert report.ok, report.to_text()
    assert set(not_checked(report)) == {"float32", "bfloat16"}


def test_parameters_in_float64_lose_no_digits_to_bfloat16():
    half = adam(mean=lambda m, g, b: (b * m + (1 - b) * g).astype(jnp.bfloat16).astype(g.dtype))
    with enable_x64(True):
        report = check_optimizer(half, ADAM, params(FLOAT64))
        assert check_optimizer(momentum(state_dtype=FLOAT32), MOMENTUM, params(FLOAT64)).ok
    assert (report.ok, report.cause) == (False, "unstable")
    assert report.detail == "the update rule is right, but digits are lost in float64"


def test_each_leaf_has_its_own_dtype():
    mixed = {"half": jnp.ones(2, jnp.bfloat16), "w": jnp.ones(3)}
    assert check_optimizer(momentum(), MOMENTUM, mixed).ok
    report = check_optimizer(PROMOTED, MOMENTUM, mixed)
    assert report.cause == "dtype"
    assert "at ['half'], where bfloat16" in report.detail


def test_a_dtype_of_the_parameters_that_is_refused_raises():
    with pytest.raises(ValueError, match=r"candidate\): expected an optimizer.*TypeError: bfloat16 is not supported"):
        check_optimizer(momentum_that_refuses(BFLOAT16), MOMENTUM, params(BFLOAT16))


def test_a_reference_that_refuses_float64_is_compared_in_the_dtype_of_the_parameters():
    reference = momentum_that_refuses(FLOAT64)
    report = check_optimizer(momentum(), reference, params(FLOAT32))
    assert report.ok, report.to_text()
    assert "the reference doesn't run in it" in not_checked(report)["float64"]
    wrong = momentum(lambda v, g: 0.8 * v + g)
    assert not check_optimizer(wrong, reference, params(FLOAT32)).ok


@pytest.mark.thorough
def test_a_rate_in_the_state_is_compared_under_a_schedule_alone():
    def momentum_of(rate):
        return optax.sgd(rate, momentum=0.9)

    injected = optax.inject_hyperparams(momentum_of)
    report = check_optimizer(lambda rate: injected(rate=rate), momentum_of, params(FLOAT32))
    assert report.ok, report.to_text()
    [reduced] = [item for item in report.properties if item.name.startswith("a reduced learning rate")]
    assert reduced.ok is None
    assert reduced.detail == "not checked, because the candidate keeps the rate in its state; a schedule was compared"
    doubled = optax.inject_hyperparams(lambda rate: optax.sgd(2 * rate, momentum=0.9))
    assert not check_optimizer(lambda rate: doubled(rate=rate), momentum_of, params(FLOAT32)).ok


def test_trees_in_errors_are_paths_and_shapes():
    lists = transformation(zeros, lambda grads, state, params: ([*jax.tree.leaves(grads)], state))
    with pytest.raises(ValueError, match=r"expected .*\['w'\] \(2, 2\); got \[0\] \(2, 2\)") as error:
        check_optimizer(lists, MOMENTUM, params(FLOAT32))
    assert "PyTreeDef" not in str(error.value)
