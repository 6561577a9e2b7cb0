"""The checker: right gradients pass, wrong ones are named, bad calls are errors and not reports."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, LAYERS, LOSSES, MODELS, WIDEST, cast, drawn_input, named

# The same numbers in every dtype: which entry is the worst doesn't depend on it.
X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3)), WIDEST)
Y = X @ jnp.array([1.0, -2.0, 0.5], WIDEST)
SOME_LOSSES = ("binary_cross_entropy_soft", "softmax_cross_entropy_one_hot")
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
        (lambda g: g / 2, "scaled", "1/2 of autodiff's gradient; the derivative of a square brings a 2"),
        (lambda g: 2 * g, "scaled", "2 of autodiff's gradient"),
        (lambda g: 6 * g, "scaled", "6 of autodiff's gradient; that is the batch size"),
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
            "expected at least one floating parameter, got int.* of shape",
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
    ],
    ids=["not a scalar", "a pair", "structure", "integers", "raises", "exchanged", "no params", "an argument more"],
)
def test_bad_calls_are_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_float32_check_under_float64_is_a_float32_check():
    report = fnn.check_gradients(loss_fn, right, *cast((PARAMS, X, Y), jnp.float32))
    assert report.ok
    assert {leaf.dtype for leaf in report.leaves} == {"float32"}
    np.testing.assert_array_less([leaf.tolerance for leaf in report.leaves], 1e-3)


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


def test_the_caller_s_configuration_is_left_alone():
    before = (jax.config.read("jax_enable_x64"), jax.config.jax_numpy_dtype_promotion)
    fnn.check_gradients(loss_fn, right, PARAMS, X, Y)
    assert (jax.config.read("jax_enable_x64"), jax.config.jax_numpy_dtype_promotion) == before


def test_a_right_gradient_at_the_optimum_is_right_in_float32():
    solution = {"w": jnp.array([1.0, -2.0, 0.5], WIDEST), "b": jnp.zeros((), WIDEST)}
    report = fnn.check_gradients(loss_fn, right, *cast((solution, X, Y), jnp.float32))
    assert report.ok, str(report)


def test_functions_that_compute_in_float32_inside_are_judged_by_its_digits():
    def pinned(params, x, y):
        return loss_fn(*cast((params, x, y), jnp.float32))

    def by_hand(params, x, y):
        return jax.tree.map(lambda g, p: g.astype(p.dtype), right(*cast((params, x, y), jnp.float32)), params)

    assert fnn.check_gradients(pinned, by_hand, PARAMS, X, Y).ok
    assert not fnn.check_gradients(
        pinned, lambda *args: jax.tree.map(lambda g: 1.01 * g, by_hand(*args)), PARAMS, X, Y
    ).ok


def rounded_on_the_way(params, x, y):
    narrow = cast((params, x, y), jnp.float32)
    return jax.tree.map(lambda g, p: g.astype(p.dtype), right(*narrow), params)


def test_a_gradient_that_rounds_to_fewer_digits_than_the_caller_s_is_unstable():
    report = fnn.check_gradients(loss_fn, rounded_on_the_way, *cast((PARAMS, X, Y), jnp.float32))
    assert report.ok, str(report)
    if jnp.float64 == WIDEST:
        report = fnn.check_gradients(loss_fn, rounded_on_the_way, PARAMS, X / 3, Y)
        assert (report.ok, report.verdict) == (True, "unstable")
        assert "by hand it is rounded to float32 on the way" in report.diagnosis
        assert not fnn.check_gradients(loss_fn, rounded_on_the_way, PARAMS, X / 3, Y, stability="fail").ok


def test_a_gradient_that_keeps_the_call_before_is_found():
    kept = [jax.tree.map(jnp.zeros_like, PARAMS)]

    def late(params, x, y):
        kept.append(right(params, x, y))
        return jax.tree.map(lambda grad, param: grad.astype(param.dtype), kept[-2], params)

    report = fnn.check_gradients(loss_fn, late, *cast((PARAMS, X, Y), jnp.float32))
    assert not report.ok
    assert not report.properties[0].ok


@pytest.mark.parametrize("root", [np.float32(2**0.5), jnp.sqrt(jnp.float32(2))], ids=["NumPy's", "JAX's"])
def test_a_constant_in_the_caller_s_dtype_is_right_to_its_last_digit(root):
    def loss(w):
        return jax.nn.gelu(w, approximate=False).sum()

    def gradient(w, root=root):
        return (1 + jax.scipy.special.erf(w / root)) / 2 + w * jnp.exp(-(w**2) / 2) / (2 * np.pi) ** 0.5

    w = jnp.array([0.5, -1.0, 2.0, 9.0, 0.0], jnp.float32)
    with jax.numpy_dtype_promotion("standard"):
        report = fnn.check_gradients(loss, gradient, w)
        assert report.ok, str(report)
        assert "the rounding of a constant to float32" in report.leaves[0].detail
        # Rounding explains no constant that is wrong in its sixth digit.
        wrong = root * np.float32(1.00001)
        assert not fnn.check_gradients(loss, lambda w: gradient(w, root=wrong), w).ok


def test_a_gradient_by_numpy():
    def by_numpy(params, x, y):
        error = 2 * (np.asarray(x) @ np.asarray(params["w"]) + np.asarray(params["b"]) - np.asarray(y)) / len(y)
        return {"w": np.asarray(x).T @ error, "b": error.sum()}

    assert fnn.check_gradients(loss_fn, by_numpy, PARAMS, X, Y).ok


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


def test_a_nan_on_both_sides_is_a_finding():
    report = fnn.check_gradients(lambda w: (w * jnp.nan).sum(), lambda w: w * jnp.nan, X)
    assert report.leaves[0].cause == "nonfinite"


def test_what_overflows_in_its_own_dtype_alone_is_a_finding():
    def gradient(w):
        return jnp.exp(w * 100) / jnp.exp(w * 100)

    w = jnp.full(2, 2.0, jnp.float32)
    report = fnn.check_gradients(lambda w: w.sum(), gradient, w)
    assert (report.ok, report.verdict, report.leaves[0].cause) == (False, "hand-written wrong", "unstable")
    assert "right in float64, but in the caller's float32 not finite" in report.leaves[0].detail


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.skipif(jnp.float64 != WIDEST, reason="float32 has no such numbers")
def test_causes_are_named_at_any_scale(scale):
    report = fnn.check_gradients(lambda w: scale * (w * w).sum(), lambda w: scale * w, X)
    assert report.leaves[0].cause == "scaled"


def test_complex_parameters_by_jax_s_convention():
    z = jnp.array([1 + 2j, -3j])
    assert fnn.check_gradients(lambda z: (z * z.conj()).real.sum(), lambda z: 2 * z.conj(), z).ok
    assert not fnn.check_gradients(lambda z: (z * z.conj()).real.sum(), lambda z: 2 * z, z).ok


def test_check_model_at_given_parameters():
    model = fnn.mlp((3, 4, 1), normalization=fnn.batch_norm)
    params, state = model.init(KEY)
    assert fnn.check_model(model, fnn.mean_squared_error, (X, Y[:, None]), params=params, state=state).ok
    wider, _ = fnn.mlp((3, 5, 1), normalization=fnn.batch_norm).init(KEY)
    with pytest.raises(ValueError, match=r"check_model\(params\): expected float\d+ of shape \(3, 4\)"):
        fnn.check_model(model, fnn.mean_squared_error, (X, Y[:, None]), params=wider)


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


def test_functions_that_insist_on_their_dtype_are_rewritten_and_the_report_says_so():
    def insisting(w):
        assert w.dtype == jnp.float32
        return (w * w).sum()

    x = X.astype(jnp.float32)
    report = fnn.check_gradients(insisting, lambda w: 2 * w, x)
    assert report.ok
    assert report.precision == "float64, the casts to float32 taken out"
    assert not fnn.check_gradients(insisting, lambda w: 2.01 * w, x).ok


def test_random_draws_that_64_bits_change_are_judged_as_the_caller_drew_them():
    x = X.astype(jnp.float32)
    with jax.enable_x64(False) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64(False):
        mask = jax.random.normal(KEY, x.shape)
        report = fnn.check_gradients(
            lambda w: (w * jax.random.normal(KEY, w.shape)).sum(), lambda w: mask.astype(w.dtype), x
        )
    assert report.ok, str(report)
    assert report.precision == "float64, the casts to float32 taken out"


def test_a_mask_in_bfloat16_is_no_bfloat16_arithmetic():
    def loss(params):
        return ((params["w"] > 0).astype(jnp.bfloat16).astype(params["w"].dtype) * params["w"] ** 2).sum() + params["b"]

    params = {"w": jnp.array([1.0, 2.0, 3.0], WIDEST), "b": jnp.array(1.0, WIDEST)}
    assert fnn.check_gradients(loss, lambda p: {"w": 2 * p["w"], "b": jnp.ones_like(p["b"])}, params).ok
    report = fnn.check_gradients(loss, lambda p: {"w": 2.0001 * p["w"], "b": jnp.zeros_like(p["b"])}, params)
    assert [leaf.cause for leaf in report.leaves] == ["zero", "scaled"]


def test_an_overflow_that_autodiff_shares_is_not_the_hand_s():
    w = jnp.array([100.0, 1.0], jnp.float32)
    assert fnn.check_gradients(lambda w: jnp.exp(w).sum(), jnp.exp, w).ok


@pytest.mark.parametrize(
    ("factor", "detail"),
    [(1 + 5e-5, "1.00005 of"), (-1 - 5e-4, "-1.0005 of"), (0.50025, "0.50025 of autodiff's gradient")],
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


def test_a_closure_over_float32_data_is_judged_by_its_digits():
    """The product of two closed-over matrices is rounded to float32 wherever the parameters are."""
    x = X.astype(jnp.float32)
    kernel = jax.random.normal(KEY, (3, 2), jnp.float32)
    right_one = fnn.check_gradients(lambda k: ((x @ k) ** 2).sum(), lambda k: 2 * (x.T @ x) @ k, kernel)
    assert right_one.ok, str(right_one)
    wrong_one = fnn.check_gradients(lambda k: ((x @ k) ** 2).sum(), lambda k: 2.001 * (x.T @ x) @ k, kernel)
    assert wrong_one.leaves[0].cause == "scaled"
