"""Combinators: what they compose, what they refuse, and that depth costs no compile time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, LAYERS, WIDEST, drawn, largest_gap

X = jax.random.normal(KEY, (5, 4), WIDEST)


def test_serial_is_its_layers_one_after_another():
    first, second = fnn.linear(4, 3), fnn.layer_norm(3)
    model = fnn.serial(first, fnn.tanh, second)
    params, state = model.init(KEY)
    y = first.forward(params[0], (), X, train=True)[0]
    y = second.forward(params[2], (), jnp.tanh(y), train=True)[0]
    np.testing.assert_array_equal(model.forward(params, state, X, train=True)[0], y)


def test_skip_adds_what_went_round():
    model = fnn.skip(fnn.tanh)
    np.testing.assert_array_equal(model.forward(*model.init(KEY), X, train=True)[0], jnp.tanh(X) + X)


def test_repeat_is_serial_with_stacked_parameters():
    layer = fnn.serial(fnn.linear(4, 4), fnn.batch_norm(4), fnn.tanh)
    repeated, unrolled = fnn.repeat(layer, 3), fnn.serial(layer, layer, layer)
    params, state = repeated.init(KEY)

    def unstack(tree):
        return tuple(jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(3))

    @jax.jit
    def both(params, state):
        y, new_state, residuals = repeated.forward(params, state, X, train=True)
        y_unrolled, new_unrolled, kept = unrolled.forward(unstack(params), unstack(state), X, train=True)
        dparams, dx = repeated.backward(residuals, y)
        dparams_unrolled, dx_unrolled = unrolled.backward(kept, y)
        return (y, unstack(new_state), unstack(dparams), dx), (y_unrolled, new_unrolled, dparams_unrolled, dx_unrolled)

    assert largest_gap(*both(params, state)) <= (1e-13 if jnp.float64 == WIDEST else 1e-5)


def test_the_program_of_a_repeat_does_not_grow_with_n():
    def program(n):
        model = fnn.repeat(fnn.serial(fnn.linear(4, 4), fnn.relu), n)
        gradient = fnn.manual_value_and_grad(model, fnn.mean_squared_error)
        params, state = jax.eval_shape(model.init, KEY)
        return len(str(jax.make_jaxpr(gradient)(params, state, (X, X))).splitlines())

    assert program(3) == program(300)


def test_a_repeat_keeps_its_inputs_alone():
    model = fnn.repeat(fnn.serial(fnn.linear(4, 4), fnn.tanh), 3)
    params, state = model.init(KEY)
    residuals = model.forward(params, state, X, train=True)[2]
    assert [leaf.shape for leaf in residuals.kept] == [(3, 5, 4)]  # an output is the next one's input
    assert residuals.given[0][0].kernel is params[0].kernel


@pytest.mark.thorough
def test_random_layers_in_a_repeat_get_keys_of_their_own():
    ones = jnp.ones((50, 50), WIDEST)
    model = fnn.repeat(fnn.dropout(0.5), 2)
    y, _, _ = model.forward(*model.init(KEY), ones, train=True, key=KEY)
    assert set(np.unique(y)) == {0, 4}
    assert abs(float((y == 4).mean()) - 0.25) < 0.05


def test_a_model_is_a_layer():
    inner = next(case for case in LAYERS if case.name == "repeat")
    model = fnn.serial(inner.layer, fnn.linear(4, 1))
    y, _, _ = model.forward(*model.init(KEY), drawn(inner)[2], train=False)
    assert y.shape == (5, 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: fnn.serial(), "serial: expected at least one layer, got none"),
        (lambda: fnn.serial(fnn.relu, fnn.linear), r"serial\(layers\[1\]\): expected a layer, got <function linear"),
        (lambda: fnn.skip(jnp.tanh), r"skip\(inner\): expected a layer"),
        (lambda: fnn.repeat(fnn.relu, 0), r"repeat\(n\): expected a positive integer, got 0"),
        (lambda: fnn.repeat(fnn.relu, 2.0), r"repeat\(n\): expected a positive integer, got 2.0 of type float"),
    ],
)
def test_what_cannot_be_built_is_refused(build, message, as_for_users):
    with pytest.raises((TypeError, ValueError), match=message):
        build()


def test_shapes_that_would_broadcast_are_refused(as_for_users):
    narrowing = fnn.skip(fnn.linear(4, 1))
    with pytest.raises(ValueError, match=r"skip: expected the shortcut's output .* \(5, 1\), got .* \(5, 4\)"):
        narrowing.forward(*narrowing.init(KEY), X, train=True)
    widening = fnn.repeat(fnn.linear(4, 5), 2)
    with pytest.raises(ValueError, match="repeat: expected a layer that keeps the shape"):
        widening.forward(*widening.init(KEY), X, train=True)


def test_parameters_of_another_model_are_refused(as_for_users):
    params, state = fnn.serial(fnn.linear(4, 2)).init(KEY)
    with pytest.raises(ValueError, match="serial: expected params as a tuple with an entry for each of 2 layers"):
        fnn.serial(fnn.linear(4, 2), fnn.relu).forward(params, state, X, train=True)

    params, state = fnn.repeat(fnn.linear(4, 4), 5).init(KEY)
    with pytest.raises(ValueError, match=r"repeat\(n=3\): expected .* whose first axis is 3, got shape \(5, 4"):
        fnn.repeat(fnn.linear(4, 4), 3).forward(params, state, X, train=True)
    with pytest.raises(ValueError, match=r"skip: expected params as SkipParts\(inner, shortcut\)"):
        fnn.skip(fnn.tanh).forward(((), ()), ((), ()), X, train=True)
    with pytest.raises(ValueError, match=r"linear\(4, 4\): expected bias as float\d+ of shape \(4,\), got .* \(1,\)"):
        fnn.linear_forward(fnn.LinearParams(jnp.ones((4, 4), WIDEST), jnp.ones(1, WIDEST)), X)
