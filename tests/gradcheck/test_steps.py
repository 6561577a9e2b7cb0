"""The first wrong step: tapped values, and every layer of a model with its true residuals and cotangent."""

import jax
import jax.numpy as jnp
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST, LayerCase

X = jax.random.normal(KEY, (6, 4), WIDEST)
Y = jax.random.normal(jax.random.key(1), (6, 1), WIDEST)


def wrong_dx(layer):
    """The layer with its dx off by a term that depends on the sample."""

    def backward(residuals, dy):
        dparams, dx = layer.backward(residuals, dy)
        return dparams, dx + 0.1 * dx**2

    return layer._replace(backward=backward)


def wrong_params(layer):
    def backward(residuals, dy):
        dparams, dx = layer.backward(residuals, dy)
        return jax.tree.map(lambda leaf: 3 * leaf, dparams), dx

    return layer._replace(backward=backward)


BROKEN = [
    LayerCase("first", fnn.serial(wrong_dx(fnn.linear(4, 5)), fnn.tanh, fnn.linear(5, 1)), 0),
    LayerCase(
        "normalization", fnn.serial(fnn.linear(4, 5), wrong_dx(fnn.batch_norm(5)), fnn.tanh, fnn.linear(5, 1)), 1
    ),
    LayerCase("activation", fnn.serial(fnn.linear(4, 5), wrong_dx(fnn.gelu), fnn.linear(5, 1)), 1),
    LayerCase("last", fnn.serial(fnn.linear(4, 5), fnn.tanh, wrong_params(fnn.linear(5, 1))), 2),
]


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(BROKEN[3], id=BROKEN[3].name),
        *(pytest.param(case, id=case.name, marks=pytest.mark.thorough) for case in BROKEN[:3]),
    ],
)
def test_the_layer_with_the_mistake_is_named_and_no_other(case):
    report = fnn.check_model(case.layer, fnn.mean_squared_error, (X, Y))
    assert not report.ok
    wrong = {step.path.partition(" ")[0] for step in report.steps if not step.ok}
    assert wrong == {f"layers[{case.features}]"}
    assert f"the first wrong step is layers[{case.features}]" in report.diagnosis


@pytest.mark.thorough
def test_a_layer_inside_skip_and_repeat_is_named():
    block = fnn.skip(fnn.serial(fnn.linear(4, 4), wrong_dx(fnn.layer_norm(4))))
    report = fnn.check_model(fnn.serial(fnn.repeat(block, 2), fnn.linear(4, 1)), fnn.mean_squared_error, (X, Y))
    wrong = [step.path for step in report.steps if not step.ok]
    assert wrong == [f"layers[0].repeat[{n}].inner.layers[1] layer_norm: dx" for n in (1, 0)]


@pytest.mark.thorough
def test_a_combinator_is_blamed_where_its_parts_are_right():
    block = fnn.skip(fnn.linear(4, 4))

    def without_shortcut(residuals, dy):
        dparams, dx = block.backward(residuals, dy)
        return dparams, dx - dy

    model = fnn.serial(fnn.linear(4, 4), block._replace(backward=without_shortcut), fnn.linear(4, 1))
    report = fnn.check_model(model, fnn.mean_squared_error, (X, Y))
    assert [step.path for step in report.steps if not step.ok] == ["layers[1] skip: dx"]


def test_the_loss_is_the_first_step():
    forgetful = fnn.mean_squared_error._replace(backward=lambda r, d: fnn.mean_squared_error_backward(r, d) / 2)
    report = fnn.check_model(fnn.linear(4, 1), forgetful, (X, Y))
    assert (report.steps[0].path, report.steps[0].cause) == ("loss: dprediction", "scaled")
    assert all(step.ok for step in report.steps[1:])
    assert {leaf.cause for leaf in report.leaves} == {"scaled"}


@pytest.mark.thorough
def test_a_missing_mean_is_recognised():
    def without_mean_term(residuals, dy):
        dparams, dx = fnn.batch_norm_backward(residuals, dy)
        return dparams, dx + residuals.inverse_deviation * (dy * residuals.scale[None]).mean(axis=0, keepdims=True)

    model = fnn.serial(fnn.linear(4, 3), fnn.batch_norm(3)._replace(backward=without_mean_term), fnn.linear(3, 1))
    step = next(step for step in fnn.check_model(model, fnn.mean_squared_error, (X, Y)).steps if not step.ok)
    assert step.path == "layers[1] batch_norm: dx"
    assert "the same all along axis 0: is a mean over it missing?" in step.detail


def test_a_backward_of_another_structure_is_an_error_that_names_the_layer():
    model = fnn.serial(fnn.linear(4, 3)._replace(backward=lambda r, dy: (dy.sum(axis=0), dy @ r.kernel.T)), fnn.tanh)
    with pytest.raises(ValueError, match=r"check_model\(model\): layers\[0\] linear: expected gradients of the "):
        fnn.check_model(model, fnn.mean_squared_error, (X, jnp.zeros((6, 3), WIDEST)))


@pytest.mark.parametrize("give", [lambda dp, dx: (dp, dx.sum(axis=0)), lambda dp, dx: (dp, dx, None)])
def test_a_backward_that_the_next_layer_cannot_take_is_named(give):
    odd = fnn.linear(3, 3)._replace(backward=lambda residuals, dy: give(*fnn.linear_backward(residuals, dy)))
    model = fnn.serial(fnn.linear(4, 3), odd, fnn.tanh)
    with pytest.raises(ValueError, match=r"check_model\(model\): layers\[1\] linear"):
        fnn.check_model(model, fnn.mean_squared_error, (X, jnp.zeros((6, 3), WIDEST)))


def tapped_loss(params, x, y):
    z1 = fnn.tap("z1", x @ params["w1"])
    a1 = fnn.tap("a1", jnp.tanh(z1))
    z2 = fnn.tap("z2", a1 @ params["w2"])
    return ((z2 - y) ** 2).mean()


def tapped_gradient(derivative):
    def gradient(params, x, y):
        a1 = jnp.tanh(x @ params["w1"])
        dz2 = 2 * (a1 @ params["w2"] - y) / y.size
        da1 = dz2 @ params["w2"].T
        dz1 = da1 * derivative(a1)
        return {"w1": x.T @ dz1, "w2": a1.T @ dz2}, {"z1": dz1, "a1": da1, "z2": dz2}

    return gradient


PARAMS = {"w1": jax.random.normal(KEY, (4, 3), WIDEST), "w2": jax.random.normal(KEY, (3, 1), WIDEST)}


def test_tapped_values_are_compared_in_backward_order():
    right = fnn.check_gradients(tapped_loss, tapped_gradient(lambda a: 1 - a**2), PARAMS, X, Y)
    assert right.ok, str(right)
    assert [step.path for step in right.steps] == ["z2", "a1", "z1"]
    wrong = fnn.check_gradients(tapped_loss, tapped_gradient(lambda a: 1 - a), PARAMS, X, Y)
    assert [step.path for step in wrong.steps if not step.ok] == ["z1"]
    assert "the first wrong step is z1" in wrong.diagnosis


def test_taps_reach_into_jit_and_disappear_from_compiled_code():
    compiled = jax.jit(tapped_loss)
    compiled(PARAMS, X, Y)
    report = fnn.check_gradients(compiled, tapped_gradient(lambda a: 1 - a), PARAMS, X, Y)
    assert [step.path for step in report.steps if not step.ok] == ["z1"]
    text = compiled.lower(PARAMS, X, Y).compile().as_text()
    assert "funcnn.tap" not in text.replace("op_name", "")


def test_bad_taps_are_errors(as_for_users):
    def unknown(params, x, y):
        gradients, taps = tapped_gradient(lambda a: 1 - a**2)(params, x, y)
        return gradients, {"h9": taps["z1"]}

    with pytest.raises(
        ValueError, match=r"expected gradients of tapped values, got 'h9'; the loss taps 'z1', 'a1', 'z2'"
    ):
        fnn.check_gradients(tapped_loss, unknown, PARAMS, X, Y)
    with pytest.raises(TypeError, match=r"tap\(name\): expected a string"):
        fnn.tap(X, "z1")


@pytest.mark.parametrize(
    ("give", "cause"),
    [(lambda dz: dz[:, :2], "shape"), (lambda dz: (dz, dz), "structure"), (lambda dz: 0 * dz, "zero")],
)
def test_taps_of_another_shape_or_structure_are_findings(give, cause):
    def gradient(params, x, y):
        gradients, taps = tapped_gradient(lambda a: 1 - a**2)(params, x, y)
        return gradients, {"z1": give(taps["z1"])}

    report = fnn.check_gradients(tapped_loss, gradient, PARAMS, X, Y)
    assert not report.ok
    assert report.steps[0].cause == cause
    assert all(leaf.ok for leaf in report.leaves)


def test_taps_of_a_loss_that_cannot_be_traced_are_refused():
    def loss(w):
        h = fnn.tap("h", w**2)
        return h.sum() if w[0, 0] != 0 else w.sum()

    with pytest.raises(
        ValueError, match=r"check_gradients\(loss_fn\): expected a loss that JAX can trace, for its taps"
    ):
        fnn.check_gradients(loss, lambda w: (2 * w, {"h": jnp.ones_like(w)}), X)
