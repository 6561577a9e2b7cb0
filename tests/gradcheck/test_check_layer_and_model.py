"""The checks of layers and models: right ones pass, and in wrong ones the parameter is named."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, LAYERS, LOSSES, MODELS, WIDEST, cast, drawn_input, named
from tests.gradcheck.linear_regression import X, Y

SOME_LOSSES = ("binary_cross_entropy_soft", "softmax_cross_entropy_one_hot")


def test_a_bias_before_batch_norm_has_a_gradient_of_pure_rounding():
    model = fnn.serial(fnn.linear(3, 4), fnn.batch_norm(4), fnn.tanh, fnn.linear(4, 1))
    assert fnn.check_model(model, fnn.mean_squared_error, (X, Y[:, None])).ok


@pytest.mark.parametrize(
    ("name", "train", "dtype"),
    [
        ("batch_norm", True, jnp.float32),
        ("batch_norm", False, WIDEST),
        ("gelu", True, jnp.bfloat16),
        ("lookup", True, WIDEST),
    ],
)
def test_check_layer_passes_right_layers(name, train, dtype):
    """One layer of each kind; ``tests/layers/test_every_layer.py`` compares every layer with autodiff."""
    case = next(case for case in LAYERS if case.name == name)
    report = fnn.check_layer(case.layer, drawn_input(case, dtype), train=train)
    assert report.ok, str(report)
    assert (report.leaves[-1].path == "x") == (case.dtype is None)


def test_check_layer_catches_a_missing_term_and_names_it():
    def without_mean_term(residuals, dy):
        dparams, dx = fnn.batch_norm_backward(residuals, dy)
        return dparams, dx + residuals.inverse_deviation * (dy * residuals.scale[None]).mean(axis=0, keepdims=True)

    report = fnn.check_layer(fnn.batch_norm(3)._replace(backward=without_mean_term), X)
    assert [leaf.path for leaf in report.leaves if not leaf.ok] == ["x"]


def test_check_layer_moves_parameters_off_their_defaults():
    """A backward that forgets γ is right as long as γ is 1."""

    def without_scale(residuals, dy):
        return fnn.batch_norm_backward(residuals._replace(scale=jnp.ones_like(residuals.scale)), dy)

    assert not fnn.check_layer(fnn.batch_norm(3)._replace(backward=without_scale), X).ok


@pytest.mark.thorough
def test_check_model_passes_a_right_model():
    """The model with every option; ``tests/test_backprop.py`` compares random ones with autodiff."""
    (case,) = (case for case in MODELS if case.name == "mlp_every_option")
    report = fnn.check_model(case.layer, fnn.mean_squared_error, (X, X[:, :2]))
    assert report.ok, str(report)


@pytest.mark.parametrize(**named([case for case in LOSSES if case.name in SOME_LOSSES]))
def test_check_model_catches_a_loss_that_forgets_the_batch_mean(case):
    forgetful = case.loss._replace(backward=lambda residuals, d: len(X) * case.loss.backward(residuals, d))
    takes_probabilities = case.loss is fnn.binary_cross_entropy
    model = fnn.serial(fnn.linear(3, 3), fnn.softmax) if takes_probabilities else fnn.linear(3, 3)
    report = fnn.check_model(model, forgetful, (X[:5], case.target))
    assert {leaf.cause for leaf in report.leaves} == {"scaled"}


@pytest.mark.thorough
def test_values_are_judged_in_float64_whatever_the_dtype():
    """In bfloat16 a bias gradient that is twice what it should be drowns in the rounding of the kernel's."""

    def doubled_bias(residuals, dy):
        gradients, dx = fnn.linear_backward(residuals, dy)
        return gradients._replace(bias=2 * gradients.bias), dx

    model = fnn.serial(fnn.linear(3, 4)._replace(backward=doubled_bias), fnn.tanh, fnn.linear(4, 1))
    x, y = (5 * X).astype(jnp.bfloat16), X[:, :1].astype(jnp.bfloat16)
    report = fnn.check_model(model, fnn.mean_squared_error, (x, y))
    assert [leaf.path for leaf in report.leaves if not leaf.ok] == ["[0].bias"]
    assert {leaf.dtype for leaf in report.leaves} == {"bfloat16"}
    assert fnn.check_model(fnn.serial(fnn.linear(3, 4), fnn.tanh, fnn.linear(4, 1)), fnn.mean_squared_error, (x, y)).ok


@pytest.mark.thorough
def test_a_vanished_gradient_is_not_taken_for_zero():
    def nothing(residuals, dy):
        gradients, dx = fnn.linear_backward(residuals, dy)
        return jax.tree.map(jnp.zeros_like, gradients), dx

    deep = [fnn.linear(3, 3), fnn.sigmoid] * 8
    model = fnn.serial(fnn.linear(3, 3)._replace(backward=nothing), fnn.sigmoid, *deep, fnn.linear(3, 1))
    report = fnn.check_model(model, fnn.mean_squared_error, (X.astype(jnp.float32), Y[:, None].astype(jnp.float32)))
    assert {leaf.path: leaf.cause for leaf in report.leaves if not leaf.ok} == {
        "[0].kernel": "zero",
        "[0].bias": "zero",
    }


@pytest.mark.thorough
def test_closures_over_layers_that_refuse_float64_are_judged_as_they_are():
    model, (x, y) = fnn.mlp((3, 4, 1)), cast((X, Y[:, None]), jnp.float32)
    params, state = cast(model.init(KEY), jnp.float32)
    gradient = fnn.manual_value_and_grad(model, fnn.mean_squared_error)
    report = fnn.check_gradients(
        lambda params: fnn.autodiff_value_and_grad(model, fnn.mean_squared_error)(params, state, (x, y))[0][0],
        lambda params: gradient(params, state, (x, y))[1],
        params,
    )
    assert report.ok, str(report)


@pytest.mark.thorough
def test_check_model_at_given_parameters():
    model = fnn.mlp((3, 4, 1), normalization=fnn.batch_norm)
    params, state = model.init(KEY)
    assert fnn.check_model(model, fnn.mean_squared_error, (X, Y[:, None]), params=params, state=state).ok
    wider, _ = fnn.mlp((3, 5, 1), normalization=fnn.batch_norm).init(KEY)
    with pytest.raises(ValueError, match=r"check_model\(params\): expected float\d+ of shape \(3, 4\)"):
        fnn.check_model(model, fnn.mean_squared_error, (X, Y[:, None]), params=wider)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("check_layer(x)", lambda x: fnn.check_layer(fnn.tanh, x)),
        ("check_model(batch): x", lambda x: fnn.check_model(fnn.tanh, fnn.mean_squared_error, (x, x))),
    ],
)
def test_input_without_a_batch_axis_or_a_sample_is_an_error(name, call, as_for_users):
    for x in (jnp.array(2.0), X[:0]):
        with pytest.raises(ValueError, match=rf"{re.escape(name)}: expected at least one sample.* got shape \("):
            call(x)


def tanh_by(forward=None, backward=None):
    """A layer of these functions, by default those of tanh."""

    def plain(params, state, x, *, train, key=None):
        y, residuals = fnn.tanh_forward(x)
        return y, state, residuals

    return fnn.Layer(lambda key: ((), ()), forward or plain, backward or (lambda y, dy: ((), fnn.tanh_backward(y, dy))))


def by_numpy(params, state, x, *, train, key=None):
    y = np.tanh(x)
    return y, state, y


def branching(params, state, x, *, train, key=None):
    return (x if x.sum() > 0 else -x), state, x


NUMPY = r"expected functions.*, got one that calls NumPy at \S*\.py:\d+, in {}\. It has to use jax\.numpy"
BACKWARD = r"check_layer\(layer\): its backward: expected {}.*Return \(dparams, dx\) from backward"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (tanh_by(by_numpy), "check_layer: " + NUMPY.format("by_numpy")),
        (tanh_by(backward=lambda y, dy: ((), np.multiply(dy, 2))), "check_layer: " + NUMPY.format("<lambda>")),
        (tanh_by(branching), r"got one that branches on a value at .*, in branching\. Write jnp\.where"),
        (
            tanh_by(lambda params, state, x, *, train, key=None: (x * float(x.sum()), state, x)),
            r"needs the value of an array, .* at .*\. Leave out float\(\)",
        ),
        (
            tanh_by(lambda params, state, x, *, train, key=None: (x[x > 0], state, x)),
            r"selects by a mask, .* at .*\. Write jnp\.where\(mask, a, 0\)",
        ),
        (tanh_by(backward=lambda y, dy: {"dx": dy, "dparams": ()}), BACKWARD.format(r"the pair \(dparams, dx\)")),
        (tanh_by(backward=lambda y, dy: dy), BACKWARD.format(r"the pair \(dparams, dx\), got one array \(6, 3\)")),
        (tanh_by(backward=lambda y, dy: ((), dy, dy)), BACKWARD.format(r"the pair \(dparams, dx\)")),
        (tanh_by(backward=lambda y, dy: None), BACKWARD.format(r"the pair \(dparams, dx\)")),
        (
            tanh_by(backward=lambda y, dy: (dy, ())),
            BACKWARD.format(r"the tree structure of \(params, x\), \.x \(6, 3\); got \.params \(6, 3\)"),
        ),
    ],
    ids=[
        "NumPy",
        "NumPy in backward",
        "if",
        "float",
        "mask",
        "dictionary",
        "dx alone",
        "three values",
        "None",
        "exchanged values",
    ],
)
def test_check_layer_says_what_a_layer_has_to_be(layer, message, as_for_users):
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        fnn.check_layer(layer, X)
    assert "grad_fn" not in str(caught.value)


def test_check_model_says_that_a_forward_has_to_use_jax_numpy(as_for_users):
    model = fnn.serial(fnn.linear(3, 3), tanh_by(by_numpy))
    with pytest.raises(TypeError, match="^check_model: " + NUMPY.format("by_numpy")):
        fnn.check_model(model, fnn.mean_squared_error, (X, X))
