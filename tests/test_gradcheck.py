"""The checker: right gradients pass, wrong ones are named, bad calls are errors and not reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.gradcheck.comparison import compare_gradients
from tests.cases import FLOATS, KEY, LAYERS, LOSSES, MODELS, WIDEST, cast, named

X = jax.random.normal(KEY, (6, 3), WIDEST)
Y = X @ jnp.array([1.0, -2.0, 0.5], WIDEST)
PARAMS = {"w": jnp.array([0.3, 0.1, -0.2], WIDEST), "b": jnp.array(0.5, WIDEST)}


def loss_fn(params, x, y):
    return ((x @ params["w"] + params["b"] - y) ** 2).mean()


def right(params, x, y):
    error = 2 * (x @ params["w"] + params["b"] - y) / len(y)
    return {"w": x.T @ error, "b": error.sum()}


def broken(**changes):
    def gradient(params, x, y):
        grads = right(params, x, y)
        return grads | {name: change(grads[name]) for name, change in changes.items()}

    return gradient


def test_a_right_gradient_passes_with_a_row_for_each_parameter():
    report = fnn.check_gradients(loss_fn, right, PARAMS, X, Y)
    assert report.ok
    assert [(leaf.path, leaf.shape, leaf.dtype) for leaf in report.leaves] == [
        ("['b']", (), WIDEST.__name__),
        ("['w']", (3,), WIDEST.__name__),
    ]
    assert all(leaf.ok and leaf.cause is None and leaf.max_abs_difference <= leaf.tolerance for leaf in report.leaves)
    assert "agree in all 2 leaves" in str(report)


def test_autodiff_itself_is_exact():
    report = fnn.check_gradients(loss_fn, jax.grad(loss_fn), PARAMS, X, Y)
    assert all(leaf.exact and leaf.max_abs_difference == 0 for leaf in report.leaves)


@pytest.mark.parametrize(
    ("change", "cause", "detail"),
    [
        (lambda g: g / 2, "scaled", "1/2 of autodiff's gradient; the derivative of a square brings a factor 2"),
        (lambda g: 2 * g, "scaled", "2 of autodiff's gradient"),
        (lambda g: 6 * g, "scaled", "6 of autodiff's gradient"),
        (lambda g: -g, "sign", "with the other sign"),
        (lambda g: 0 * g, "zero", "zero everywhere by hand"),
        (lambda g: g.at[1].set(jnp.nan), "nonfinite", r"nan by hand .* first at index \(1,\)"),
        (lambda g: g[None], "shape", r"shape \(1, 3\) where the parameter has \(3,\)"),
        (lambda g: g.astype(jnp.float16), "dtype", "dtype float16 where the parameter has float"),
        (lambda g: g.at[2].add(0.1), "unknown", r"by hand and .* by autodiff at index \(2,\)"),
    ],
    ids=["half", "double", "times batch", "sign", "zero", "nan", "shape", "dtype", "element"],
)
def test_a_wrong_leaf_is_named_and_the_right_one_left_alone(change, cause, detail):
    report = fnn.check_gradients(loss_fn, broken(w=change), PARAMS, X, Y)
    bias, kernel = report.leaves
    assert not report.ok
    assert bias.ok
    assert kernel.cause == cause
    with pytest.raises(AssertionError, match=detail):
        fnn.assert_gradients(loss_fn, broken(w=change), PARAMS, X, Y)


def test_a_transposed_gradient_is_named():
    kernel = jax.random.normal(KEY, (3, 3), WIDEST)
    report = fnn.check_gradients(lambda k: ((X @ k) ** 2).sum(), lambda k: (2 * X.T @ X @ k).T, kernel)
    assert report.leaves[0].cause == "transposed"


def test_leaves_wrong_by_one_cause_are_one_finding():
    report = fnn.check_gradients(loss_fn, broken(w=lambda g: g / 2, b=lambda g: g / 2), PARAMS, X, Y)
    assert report.diagnosis.splitlines()[0] == "The gradient by hand is wrong in 2 of 2 leaves."
    assert report.diagnosis.splitlines()[1].startswith("['b'], ['w']: scaled: 1/2")


def test_one_wrong_entry_among_many_is_seen():
    gradient = jnp.ones((500, 400), WIDEST)
    report = compare_gradients({"w": gradient.at[123, 45].add(1e-3)}, {"w": gradient})
    assert not report.ok
    assert "(123, 45)" in report.leaves[0].detail


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_the_scale_of_the_loss_does_not_matter(scale):
    def scaled_loss(params, x, y):
        return scale * loss_fn(params, x, y)

    def scaled_gradient(params, x, y):
        return jax.tree.map(lambda g: scale * g, right(params, x, y))

    assert fnn.check_gradients(scaled_loss, scaled_gradient, PARAMS, X, Y).ok
    assert not fnn.check_gradients(scaled_loss, lambda *args: jax.tree.map(lambda g: 1.001 * g, scaled_gradient(*args)),
                                   PARAMS, X, Y).ok  # fmt: skip


def test_a_bias_before_batch_norm_has_a_gradient_of_pure_rounding():
    model = fnn.serial(fnn.linear(3, 4), fnn.batch_norm(4), fnn.tanh, fnn.linear(4, 1))
    assert fnn.check_model(model, fnn.mean_squared_error, (X, Y[:, None])).ok


@pytest.mark.parametrize("dtype", FLOATS, ids=[dtype.__name__ for dtype in FLOATS])
@pytest.mark.parametrize("train", [True, False], ids=["train", "predict"])
@pytest.mark.parametrize(**named([case for case in LAYERS if case.name in ("batch_norm", "repeat", "gelu")]))
def test_check_layer_passes_right_layers(case, train, dtype):
    report = fnn.check_layer(case.layer, jax.random.normal(KEY, (5, case.features), dtype), train=train)
    assert report.ok, str(report)
    assert report.leaves[-1].path == "x"


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


@pytest.mark.parametrize(**named(MODELS))
def test_check_model_passes_right_models(case):
    report = fnn.check_model(case.layer, fnn.mean_squared_error, (X, X[:, : 1 if case.name == "perceptron" else 2]))
    assert report.ok, str(report)


@pytest.mark.parametrize(**named(LOSSES))
def test_check_model_catches_a_loss_that_forgets_the_batch_mean(case):
    forgetful = case.loss._replace(backward=lambda residuals, d: len(X) * case.loss.backward(residuals, d))
    if case.loss in (fnn.binary_cross_entropy, fnn.categorical_cross_entropy):
        model = fnn.serial(fnn.linear(3, 3), fnn.softmax)
    else:
        model = fnn.linear(3, 3)
    report = fnn.check_model(model, forgetful, (X[:5], case.target))
    assert {leaf.cause for leaf in report.leaves} == {"scaled"}


def test_scalars_empty_trees_and_none_are_parameters_too():
    assert fnn.check_gradients(lambda w: w**2, lambda w: 2 * w, jnp.array(3.0, WIDEST)).leaves[0].path == ""
    assert fnn.check_gradients(lambda p: (p["a"] ** 2).sum(), lambda p: {"a": 2 * p["a"], "b": None},
                               {"a": X, "b": None}).ok  # fmt: skip
    assert fnn.check_gradients(lambda _: jnp.zeros((), WIDEST), lambda _: {}, {}).ok


def test_the_table_shows_every_leaf_and_the_finding():
    text = str(fnn.check_gradients(loss_fn, broken(w=lambda g: -g), PARAMS, X, Y))
    header, _, bias, kernel, *_ = text.splitlines()
    assert header.split()[:5] == ["parameter", "shape", "dtype", "ok", "difference"]
    assert bias.split()[0] == "['b']"
    assert "NO" in kernel
    assert text.endswith("['w']: sign: autodiff's gradient with the other sign")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: fnn.check_gradients(lambda p: p * 2, lambda p: p, X),
            ValueError,
            r"expected a function that returns a scalar, got .*\(6, 3\)",
        ),
        (
            lambda: fnn.check_gradients(lambda p: (p * 2, p), lambda p: p, X),
            ValueError,
            "expected a function that returns a scalar",
        ),
        (
            lambda: fnn.check_gradients(loss_fn, lambda p, x, y: [p["w"]], PARAMS, X, Y),
            ValueError,
            r"expected the tree structure of the parameters.*'b'.*got PyTreeDef\(\[\*\]\)",
        ),
        (
            lambda: fnn.check_gradients(lambda p: p.sum(), lambda p: p, jnp.arange(3)),
            TypeError,
            "expected floating parameters, got int.* of shape",
        ),
        (lambda: fnn.check_gradients(loss_fn, lambda *_: 1 / 0, PARAMS, X, Y), ZeroDivisionError, "division by zero"),
    ],
    ids=["not a scalar", "a pair", "structure", "integers", "raises"],
)
def test_bad_calls_are_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_float32_check_under_float64_is_a_float32_check():
    report = fnn.check_gradients(loss_fn, right, *cast((PARAMS, X, Y), jnp.float32))
    assert report.ok
    assert {leaf.dtype for leaf in report.leaves} == {"float32"}
    np.testing.assert_array_less([leaf.tolerance for leaf in report.leaves], 1e-3)
