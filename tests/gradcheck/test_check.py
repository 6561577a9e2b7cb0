"""The checker: right gradients pass, wrong ones are named, bad calls are errors and not reports."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST, cast
from tests.gradcheck.linear_regression import PARAMS, X, Y, broken, loss_fn, right


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
        (lambda g: g / 2, "scaled", "1/2 of autodiff's gradient; the derivative of a square brings a 2"),
        (lambda g: 2 * g, "scaled", "2 times autodiff's gradient"),
        (lambda g: 6 * g, "scaled", "6 times autodiff's gradient; that is the batch size"),
        (lambda g: -g, "sign", "with the other sign"),
        (lambda g: 0 * g, "zero", "zero everywhere by hand"),
        (lambda g: g.at[1].set(jnp.nan), "nonfinite", r"nan by hand .* first at index \(1,\)"),
        (lambda g: g[None], "shape", r"shape \(1, 3\) where the value has \(3,\)"),
        (lambda g: g.astype(jnp.float16), "dtype", "dtype float16 where the value has float"),
        (lambda g: g * jnp.arange(1, 4, dtype=g.dtype), "unknown", r"by hand and .* by autodiff at index \(2,\)"),
        (lambda g: g.at[2].add(0.1), "element", r"1 of 3 entries wrong, the rest right: \(2,\)"),
    ],
    ids=["half", "double", "times batch", "sign", "zero", "nan", "shape", "dtype", "unknown", "element"],
)
def test_a_wrong_leaf_is_named_and_the_right_one_left_alone(change, cause, detail):
    with pytest.raises(AssertionError, match=detail) as caught:
        fnn.assert_gradients(loss_fn, broken(w=change), PARAMS, X, Y)
    report = caught.value.report
    bias, kernel = report.leaves
    assert not report.ok
    assert bias.ok
    assert kernel.cause == cause


def test_a_gradient_of_each_sample_is_right_once_summed():
    def of_each_sample(params, x, y):
        error = 2 * (x @ params["w"] + params["b"] - y) / len(y)
        return {"w": x * error[:, None], "b": error.sum()}

    report = fnn.check_gradients(loss_fn, of_each_sample, PARAMS, X, Y)
    assert report.leaves[1].cause == "shape"
    assert "right once summed over the first axis: the samples' gradients add up" in report.leaves[1].detail


def test_a_transposed_gradient_is_named():
    kernel = jax.random.normal(KEY, (3, 3), WIDEST)
    report = fnn.check_gradients(lambda k: ((X @ k) ** 2).sum(), lambda k: (2 * X.T @ X @ k).T, kernel)
    assert report.leaves[0].cause == "transposed"


def test_leaves_wrong_by_one_cause_are_one_finding():
    report = fnn.check_gradients(loss_fn, broken(w=lambda g: g / 2, b=lambda g: g / 2), PARAMS, X, Y)
    assert report.diagnosis.splitlines()[0] == "The gradient by hand is wrong in 2 of 2 leaves."
    assert report.diagnosis.splitlines()[1].startswith("['b'], ['w']: scaled: 1/2")


@pytest.mark.thorough
def test_one_wrong_entry_among_many_is_seen():
    gradient = jnp.ones((500, 400), WIDEST)
    report = fnn.check_gradients(lambda w: w.sum(), lambda w: gradient.at[123, 45].add(1e-3), gradient)
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


def test_scalars_empty_trees_and_none_are_parameters_too():
    assert fnn.check_gradients(lambda w: w**2, lambda w: 2 * w, jnp.array(3.0, WIDEST)).leaves[0].path == ""
    assert fnn.check_gradients(lambda p: (p["a"] ** 2).sum(), lambda p: {"a": 2 * p["a"], "b": None},
                               {"a": X, "b": None}).ok  # fmt: skip
    assert fnn.check_gradients(lambda _: jnp.zeros((), WIDEST), lambda _: {}, {}).ok


def test_the_table_shows_every_leaf_and_the_finding():
    text = str(fnn.check_gradients(loss_fn, broken(w=lambda g: -g), PARAMS, X, Y))
    header, _, bias, kernel, *_ = text.splitlines()
    assert header.split()[:5] == ["parameter", "shape", "dtype", "ok", "at"]
    assert bias.split()[0] == "['b']"
    assert "NO" in kernel
    assert "['w']: sign: autodiff's gradient with the other sign" in text


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
            r"expected the tree structure of the parameters.*'b'.*got \[0\] \(3,\)",
        ),
        (
            lambda: fnn.check_gradients(lambda p: p.sum(), lambda p: p, jnp.arange(3)),
            TypeError,
            r"expected at least one floating array, got int.* of shape .* such as jnp\.asarray\(params, float\)",
        ),
        (
            lambda: fnn.check_gradients(loss_fn, right, PARAMS, X, Y, stability="warn"),
            ValueError,
            r"check_gradients\(stability\): expected one of .*'report', 'fail'.*, got 'warn'",
        ),
        (lambda: fnn.check_gradients(loss_fn, lambda *_: 1 / 0, PARAMS, X, Y), ZeroDivisionError, "division by zero"),
        (
            lambda: fnn.check_gradients(right, loss_fn, PARAMS, X, Y),
            ValueError,
            "check_gradients.loss_fn.: .*a tree like the parameters: were loss_fn and grad_fn exchanged",
        ),
        (
            lambda: fnn.check_gradients(loss_fn, right, X, Y),
            TypeError,
            r"loss_fn.*takes .params, .args., 2 in all, got one of \(params, x, y\).*were params forgotten",
        ),
        (
            lambda: fnn.check_gradients(loss_fn, lambda params, x: params, PARAMS, X, Y),
            TypeError,
            r"check_gradients.grad_fn.: .*got one of \(params, x\): too many positional arguments",
        ),
        (
            lambda: fnn.check_gradients(lambda p: p["a"].sum(), lambda p: p, {"a": jnp.arange(3), "b": 1}),
            TypeError,
            r"got int.* at \['a'\]\. Make them floating: params = jax\.tree\.map\(lambda leaf: jnp\.asarray\(leaf, ",
        ),
        (
            lambda: fnn.check_gradients(lambda p: p.sum(), lambda p: p, "w"),
            TypeError,
            "got 'w' of type str at the root. Give it arrays of floating numbers",
        ),
        (
            lambda: fnn.check_gradients(jax.jit(lambda p: np.tanh(p).sum()), lambda p: p, X),
            TypeError,
            r"check_gradients: expected functions that JAX can trace, got one that calls NumPy at .*test_check\.py:\d"
            r"+, in <lambda>\. It has to use jax\.numpy",
        ),
    ],
    ids=[
        "not a scalar",
        "a pair",
        "structure",
        "integers",
        "stability",
        "raises",
        "exchanged",
        "no params",
        "an argument more",
        "a dictionary of integers",
        "a word for params",
        "NumPy under jit",
    ],
)
def test_bad_calls_are_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_gradient_that_keeps_the_call_before_is_found():
    kept = [jax.tree.map(jnp.zeros_like, PARAMS)]

    def late(params, x, y):
        kept.append(right(params, x, y))
        return jax.tree.map(lambda grad, param: grad.astype(param.dtype), kept[-2], params)

    report = fnn.check_gradients(loss_fn, late, *cast((PARAMS, X, Y), jnp.float32))
    assert not report.ok
    assert not report.properties[0].ok


def test_a_gradient_by_numpy():
    def by_numpy(params, x, y):
        error = 2 * (np.asarray(x) @ np.asarray(params["w"]) + np.asarray(params["b"]) - np.asarray(y)) / len(y)
        return {"w": np.asarray(x).T @ error, "b": error.sum()}

    assert fnn.check_gradients(loss_fn, by_numpy, PARAMS, X, Y).ok


def test_a_loss_by_numpy_is_measured_and_the_report_names_its_line():
    report = fnn.check_gradients(lambda w: np.square(w).sum(), lambda w: 2 * w, X)
    assert report.ok, str(report)
    assert re.search(r"the loss calls NumPy at \S*test_check\.py:\d+, in <lambda>, and JAX ", report.no_autodiff)


def test_a_loss_that_fails_in_any_order_keeps_its_own_error():
    def failing(params, x):
        raise KeyError("absent")

    with pytest.raises(KeyError, match="absent"):
        fnn.check_gradients(failing, lambda params, x: params, X, Y)


def test_arguments_that_are_no_arrays_pass_untouched():
    def loss(params, name, flag, layer, key, rows):
        assert name == "mean"
        assert flag is True
        y = layer.forward((), (), params[:rows], train=flag, key=key)[0]
        return (y * y).mean()

    def gradient(params, name, flag, layer, key, rows):
        y, _, residuals = layer.forward((), (), params[:rows], train=flag, key=key)
        dx = layer.backward(residuals, 2 * y / y.size)[1]
        return jnp.zeros_like(params).at[:rows].set(dx)

    for key in (KEY, jax.random.PRNGKey(3)):
        assert fnn.check_gradients(loss, gradient, X, "mean", True, fnn.dropout(0.5), key, 4).ok


def test_parameters_without_a_gradient_are_named_with_the_reason(promotion_as_for_users):
    def loss(params):
        return params["count"][0] * (params["w"] ** 2).sum()

    def gradient(params):
        return params | {"w": 2 * params["count"][0] * params["w"]}

    counts = np.arange(2, 4, dtype=np.int32)
    params = {"w": X[0], "count": counts, "key": KEY, "on": True, "steps": 3, "unit": "mm"}
    report = fnn.check_gradients(loss, gradient, params)
    assert report.ok, str(report)
    assert [leaf.path for leaf in report.leaves] == ["['w']"]
    assert [tuple(leaf) for leaf in report.not_compared] == [
        ("['count']", "int32", "integers have no gradient"),
        ("['key']", str(KEY.dtype), "random keys have no gradient"),
        ("['on']", "bool", "booleans have no gradient"),
        ("['steps']", "int", "integers have no gradient"),
        ("['unit']", "str", "no array of numbers"),
    ]
    assert fnn.check_gradients(loss_fn, right, PARAMS, X, Y).not_compared == ()


def test_a_nan_on_both_sides_is_a_finding():
    report = fnn.check_gradients(lambda w: (w * jnp.nan).sum(), lambda w: w * jnp.nan, X)
    assert report.leaves[0].cause == "nonfinite"


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.skipif(jnp.float64 != WIDEST, reason="float32 has no such numbers")
def test_causes_are_named_at_any_scale(scale):
    report = fnn.check_gradients(lambda w: scale * (w * w).sum(), lambda w: scale * w, X)
    assert report.leaves[0].cause == "scaled"


def test_complex_parameters_by_jax_s_convention():
    z = jnp.array([1 + 2j, -3j])
    assert fnn.check_gradients(lambda z: (z * z.conj()).real.sum(), lambda z: 2 * z.conj(), z).ok
    assert not fnn.check_gradients(lambda z: (z * z.conj()).real.sum(), lambda z: 2 * z, z).ok


def test_functions_that_donate_or_change_their_arguments():
    def sorting_its_copy(w, x):
        x.sort(axis=0)
        return np.asarray(x.max(axis=0))

    assert fnn.check_gradients(loss_fn, jax.jit(right, donate_argnums=0), PARAMS, X, Y).ok
    given = np.array(X)
    report = fnn.check_gradients(lambda w, x: (w * x.max(axis=0)).sum(), sorting_its_copy, X[0], given)
    assert report.ok, str(report)
    np.testing.assert_array_equal(given, X)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_loss_that_donates_is_measured_where_a_leaf_is_right():
    """The slope is asked for along the wrong leaves alone; the others are donated too."""

    def loss(params, x):
        return ((x @ params["w"] + params["b"]) ** 2).mean()

    def half(params, x):
        exact = jax.grad(loss)(params, x)
        return exact | {"w": exact["w"] / 2}

    params = {"w": X[0], "b": jnp.array(1.0, WIDEST)}
    report = fnn.check_gradients(jax.jit(loss, donate_argnums=0), half, params, X)
    assert report.verdict == "hand-written wrong"
    assert [leaf.cause for leaf in report.leaves] == [None, "scaled"]
    assert not params["b"].is_deleted()


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_key_may_be_donated():
    def loss(w, key):
        return (w * jax.random.normal(key, w.shape, w.dtype)).sum()

    def gradient(w, key):
        return jax.random.normal(key, w.shape, w.dtype)

    donating = (jax.jit(function, donate_argnums=1) for function in (loss, gradient))
    key = jax.random.key(0)
    assert fnn.check_gradients(*donating, X[0], key).ok
    assert not key.is_deleted()


def test_another_gradient_for_tracers_is_found_though_it_is_compiled():
    def two_faced(w):
        return jax.jit(lambda w: 3 * w)(w) if isinstance(w, jax.core.Tracer) else 2 * w

    report = fnn.check_gradients(lambda w: (w * w).sum(), two_faced, X[0])
    assert [entry.name for entry in report.properties if not entry.ok] == ["the same traced, as under jit"]


def test_numpy_labels_in_a_closure(as_for_users):
    labels = np.array([0, 1, 2, 1, 0, 2])
    report = fnn.check_gradients(
        lambda z: fnn.softmax_cross_entropy.forward(z, labels)[0],
        lambda z: fnn.softmax_cross_entropy.backward(
            fnn.softmax_cross_entropy.forward(z, labels)[1], jnp.ones((), z.dtype)
        ),
        X,
    )
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("factor", "detail"),
    [(1 + 5e-5, "1.00005 times"), (-1 - 5e-4, "-1.0005 times"), (0.50025, "0.50025 times autodiff's gradient")],
)
def test_a_factor_is_named_to_the_digits_that_are_known(factor, detail):
    report = fnn.check_gradients(loss_fn, broken(w=lambda g: factor * g), PARAMS, X, Y)
    assert report.leaves[1].detail.startswith(detail)
    assert "square" not in report.leaves[1].detail


def test_tracers_and_seeds_are_refused(as_for_users):
    with pytest.raises(TypeError, match=r"expected arrays, got tracers\. Call it outside jit"):
        jax.jit(lambda w: fnn.check_gradients(lambda w: (w * w).sum(), lambda w: 2 * w, w).ok)(X)
    with pytest.raises(TypeError, match=r"check_layer\(key\): expected one random key, got 3"):
        fnn.check_layer(fnn.tanh, X, key=3)


def test_an_error_asks_whether_the_parameters_come_first():
    with pytest.raises((TypeError, IndexError, ValueError)) as caught:
        fnn.check_gradients(loss_fn, right, X, Y, PARAMS)
    (note,) = caught.value.__notes__
    assert "were the parameters passed behind args[1]? With ['b'] (), ['w'] (3,) in the place of one array (6" in note

    def refuses(rates, counts):
        if (rates < 0).any():
            raise ValueError("negative rates")
        return (rates * counts).sum()

    with pytest.raises(ValueError, match=r"^negative rates$") as caught:
        fnn.check_gradients(refuses, lambda rates, counts: counts, np.array([-1.0, 2.0]), np.array([1.0, 2.0]))
    assert not hasattr(caught.value, "__notes__")
