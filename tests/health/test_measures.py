"""The figures are NumPy's, the gradients are the GradFn's, the names are check_model's, and a scan can stack them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from funcnn.gradcheck.layers import _model_functions
from funcnn.health import LayerMeasures, monitored_value_and_grad, update_ratios
from funcnn.layers.traversal import layer_names
from tests.cases import WIDEST, largest_gap

TOLERANCE = 1e-12 if WIDEST == jnp.float64 else 1e-5
"""A few thousand sums of numbers near 1 in the dtype of the run."""


def nested_block():
    return fnn.serial(fnn.linear(4, 4), fnn.batch_norm(4), fnn.tanh, fnn.dropout(0.3))


NESTED = fnn.serial(
    fnn.linear(3, 4), fnn.skip(nested_block()), fnn.repeat(fnn.skip(nested_block()), 3), fnn.linear(4, 2)
)


@pytest.fixture(scope="module")
def nested():
    params, state = NESTED.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 2)
    batch = (jax.random.normal(keys[0], (6, 3), WIDEST), jnp.array([0, 1, 1, 0, 1, 0]))
    return params, state, batch, keys[1]


def lost(model, loss):
    """A gradient function that isn't manual_value_and_grad: the right loss, and zeros."""

    def value_and_grad(params, state, batch, *, key=None):
        value_and_state, grads = fnn.manual_value_and_grad(model, loss)(params, state, batch, key=key)
        return value_and_state, jax.tree.map(jnp.zeros_like, grads)

    return value_and_grad


GRADS = {"manual": fnn.manual_value_and_grad, "autodiff": fnn.autodiff_value_and_grad, "lost": lost}


@pytest.fixture(scope="module")
def nested_runs(nested):
    """By whose gradients: a monitored step, and one without, compiled together."""
    params, state, batch, key = nested
    loss = fnn.softmax_cross_entropy

    @jax.jit
    def steps(*arguments):
        return {
            name: (
                monitored_value_and_grad(NESTED, loss, grad)(*arguments, key=key),
                grad(NESTED, loss)(*arguments, key=key),
            )
            for name, grad in GRADS.items()
        }

    return steps(params, state, batch)


@pytest.fixture(scope="module")
def small():
    """A network whose first hidden unit is dead and whose tanh is partly flat, with its figures by NumPy."""
    model = fnn.serial(fnn.linear(2, 3), fnn.relu, fnn.linear(3, 3), fnn.tanh, fnn.linear(3, 2), fnn.softmax)
    params, state = model.init(jax.random.key(3))
    dead = params[0]._replace(bias=jnp.array([-50.0, 0.5, 0.5], WIDEST))
    params = (dead, (), params[2]._replace(kernel=6 * params[2].kernel), *params[3:])
    batch = (jax.random.normal(jax.random.key(4), (5, 2), WIDEST), jnp.array([0, 1, 1, 0, 1]))
    return model, params, state, batch


def by_numpy(params, x, labels):
    """Outputs, cotangents and parameter gradients of the small network, layer by layer, in plain NumPy."""
    (k0, b0), _, (k1, b1), _, (k2, b2), _ = jax.tree.map(np.asarray, params)
    z0 = x @ k0 + b0
    a0 = np.maximum(z0, 0)
    z1 = a0 @ k1 + b1
    a1 = np.tanh(z1)
    z2 = a1 @ k2 + b2
    p = np.exp(z2 - z2.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    y = np.eye(2)[labels]
    dp = -y / p / len(x)
    dz2 = (p - y) / len(x)
    da1 = dz2 @ k2.T
    dz1 = da1 * (1 - a1**2)
    da0 = dz1 @ k1.T
    dz0 = da0 * (z0 > 0)
    norms = [np.sqrt((f.T @ d) ** 2).ravel() for f, d in ((x, dz0), (a0, dz1), (a1, dz2))]
    biases = [d.sum(axis=0) for d in (dz0, dz1, dz2)]
    gradients = [np.linalg.norm([*kernel, *bias]) for kernel, bias in zip(norms, biases, strict=True)]
    return [z0, a0, z1, a1, z2, p], [dz0, da0, dz1, da1, dz2, dp], gradients


def test_the_figures_are_those_of_plain_numpy(small):
    model, params, state, batch = small
    _, _, measures = jax.jit(monitored_value_and_grad(model, fnn.categorical_cross_entropy))(params, state, batch)
    outputs, cotangents, gradients = by_numpy(params, np.asarray(batch[0]), np.asarray(batch[1]))
    root_mean_squares = [np.sqrt((dy**2).mean()) for dy in cotangents]
    a0, a1, p = outputs[1], outputs[3], outputs[5]
    weights = [np.linalg.norm([*np.ravel(params[row].kernel), *params[row].bias]) for row in (0, 2, 4)]
    expected = LayerMeasures(
        mean=[y.mean() for y in outputs],
        spread=[y.std() for y in outputs],
        between_units=[np.sqrt(y.var(axis=-1).mean()) for y in outputs],
        saturated=[0, 0, 0, (1 - a1**2 < 0.05).mean(), 0, (p * (1 - p) < 0.05 / 4).mean()],
        dead=[0, (a0 == 0).all(axis=0).mean(), 0, 0, 0, 0],
        cotangent=root_mean_squares,
        relative_cotangent=np.array(root_mean_squares) / root_mean_squares[-1],
        gradient_norm=[gradients[0], 0, gradients[1], 0, gradients[2], 0],
        parameter_norm=[weights[0], 0, weights[1], 0, weights[2], 0],
    )
    assert 0 < expected.saturated[3] < 1
    assert expected.dead[1] == pytest.approx(1 / 3)
    for name, by_hand, figures in zip(measures._fields, measures, expected, strict=True):
        assert by_hand.shape == (6,)
        assert by_hand.dtype == WIDEST
        np.testing.assert_allclose(by_hand, figures, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


def test_loss_state_and_gradients_are_those_of_the_gradient_function(nested_runs):
    for (*watched, measures), alone in nested_runs.values():
        assert jax.tree.structure(tuple(watched)) == jax.tree.structure(alone)
        assert largest_gap(tuple(watched), alone) < TOLERANCE
        assert {figures.shape for figures in measures} == {(len(layer_names(NESTED)),)}


def test_the_figures_are_the_same_beside_another_gradient_function(nested_runs):
    by_hand, by_autodiff, beside = (nested_runs[grad][0] for grad in GRADS)
    assert largest_gap(by_hand[2], by_autodiff[2]) < TOLERANCE
    assert largest_gap(by_hand[2], beside[2]) < TOLERANCE
    assert not any(leaf.any() for leaf in jax.tree.leaves(beside[1]))


def test_a_repeated_layer_has_a_row_for_every_repetition(nested, nested_runs):
    params, measures, names = nested[0], nested_runs["manual"][0][2], layer_names(NESTED)
    assert len(names) == 1 + 5 + 3 * 5 + 1
    for number in range(3):
        row = names.index(f"layers[2].repeat[{number}].inner.layers[0] linear")
        kernel, bias = (np.asarray(leaf[number]) for leaf in params[2].inner[0])
        assert float(measures.parameter_norm[row]) == pytest.approx(np.linalg.norm([*kernel.ravel(), *bias]), rel=1e-5)
    rows = [names.index(f"layers[2].repeat[{number}].shortcut identity") for number in range(3)]
    assert len({float(measures.cotangent[row]) for row in rows}) == 3


def test_the_names_are_those_that_check_model_gives(nested):
    params, state, batch, key = nested
    parts, named = _model_functions(NESTED, fnn.softmax_cross_entropy)[3], []

    def read(*arguments):
        named.extend(step.name for step in parts(*arguments) if step.parts == 0)

    jax.eval_shape(read, params, state, fnn.Batch(*batch), key)
    assert set(named) == set(layer_names(NESTED))
    assert layer_names(fnn.linear(2, 1)) == ("linear",)


def test_update_ratios_are_norms_over_norms_also_inside_repeat(nested):
    params = nested[0]
    names = layer_names(NESTED)
    shares = jnp.arange(1.0, 4.0, dtype=WIDEST)
    updates = jax.tree.map(lambda leaf: leaf / 4, params)
    third = jax.tree.map(lambda leaf: leaf * shares.reshape(3, *[1] * (leaf.ndim - 1)), params[2])
    ratios = update_ratios(NESTED, (*updates[:2], third, updates[3]), params)
    expected = {name: 0.0 for name in names if not name.endswith(("linear", "batch_norm"))}
    expected |= {name: 0.25 for name in names if name not in expected}
    expected |= {name: 1.0 + int(name[17]) for name in names if name.startswith("layers[2]") and expected[name]}
    np.testing.assert_allclose(ratios, [expected[name] for name in names], rtol=1e-5)


def test_a_scan_with_a_step_in_three_monitored_trains_as_one_without(small):
    model, params, state, batch = small
    optimizer, loss = fnn.adam(0.01), fnn.categorical_cross_entropy
    plain, monitored = fnn.manual_value_and_grad(model, loss), monitored_value_and_grad(model, loss)
    like = jax.eval_shape(monitored, params, state, batch)[2]
    nothing = jax.tree.map(lambda figures: jnp.zeros(figures.shape, figures.dtype), like)

    def step(carry, number, is_monitored):
        params, opt_state = carry
        (value, _), gradients = plain(params, state, batch)
        figures = nothing
        if is_monitored:
            figures = jax.lax.cond(
                number % 3 == 0, lambda params: monitored(params, state, batch)[2], lambda params: nothing, params
            )
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), (
            value,
            figures,
            update_ratios(model, updates, params),
        )

    @jax.jit
    def runs(params):
        start, numbers = (params, optimizer.init(params)), jnp.arange(9)
        return [jax.lax.scan(lambda c, n, m=m: step(c, n, m), start, numbers) for m in (True, False)]

    (watched, (losses, figures, ratios)), (alone, _) = runs(params)
    # XLA compiles the two loops apart, and may round them differently.
    assert largest_gap(watched, alone) < 1e-15
    assert figures.spread.shape == ratios.shape == (9, 6)
    assert losses[-1] < losses[0]
    np.testing.assert_array_equal((figures.spread > 0).any(axis=1), np.arange(9) % 3 == 0)


def test_bfloat16_is_measured_in_float32(small):
    model, params, state, batch = small
    params, x = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), (params, batch[0]))
    step = monitored_value_and_grad(model, fnn.categorical_cross_entropy)
    _, gradients, measures = jax.eval_shape(step, params, state, (x, batch[1]))
    assert {figures.dtype for figures in measures} == {jnp.dtype("float32")}
    assert {leaf.dtype for leaf in jax.tree.leaves(gradients)} == {jnp.dtype("bfloat16")}


def test_bad_arguments_are_refused(small, as_for_users):
    model, params, _, _ = small
    with pytest.raises(TypeError, match=r"monitored_value_and_grad\(grad\): expected a function"):
        monitored_value_and_grad(model, fnn.softmax_cross_entropy, "manual")
    with pytest.raises(ValueError, match=r"update_ratios\(updates\)"):
        update_ratios(model, params[:2], params)


def test_growth_over_time_is_that_of_the_recurrent_kernel():
    model = fnn.serial(fnn.rnn(2, 3), fnn.last_step, fnn.linear(3, 1))
    (recurrent, *others), state = jax.tree.map(lambda leaf: leaf.astype(WIDEST), model.init(jax.random.key(0)))
    # From zero inputs h stays 0, where tanh is the identity: a step back multiplies the gradient by 2.
    params = (recurrent._replace(hidden_kernel=2 * jnp.eye(3, dtype=WIDEST)), *others)
    batch = (jnp.zeros((4, 5, 2), WIDEST), jnp.ones((4, 1), WIDEST))
    _, _, measures = jax.jit(monitored_value_and_grad(model, fnn.mean_squared_error))(params, state, batch)
    np.testing.assert_allclose(measures.growth_over_time, [16.0, 0.0, 0.0], rtol=TOLERANCE)
