"""Models: what they are made of, and how they begin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.layers.traversal import leaf_layers
from tests.cases import KEY, WIDEST, LayerCase, drawn, largest_gap, relative_gap

X = jax.random.normal(KEY, (5, 3), WIDEST)


def test_mlp_is_the_serial_that_one_would_write():
    by_hand = fnn.serial(
        fnn.linear(3, 4, jax.nn.initializers.zeros), fnn.relu, fnn.linear(4, 2, jax.nn.initializers.zeros), fnn.softmax
    )
    assert fnn.mlp((3, 4, 2), output=fnn.softmax, kernel_init=jax.nn.initializers.zeros) == by_hand


def test_blocks_hold_normalization_activation_and_dropout_in_this_order():
    zeros = jax.nn.initializers.zeros
    model = fnn.mlp((3, 4, 2), fnn.tanh, kernel_init=zeros, normalization=fnn.batch_norm, dropout=0.5)
    assert model == fnn.serial(
        fnn.linear(3, 4, zeros), fnn.batch_norm(4), fnn.tanh, fnn.dropout(0.5), fnn.linear(4, 2, zeros)
    )


def test_skip_projects_only_where_the_width_changes():
    params, _ = fnn.mlp((3, 4, 4, 2), skip=True).init(KEY)
    assert params[0].shortcut.kernel.shape == (3, 4)
    assert params[1].shortcut == ()


@pytest.mark.parametrize(
    ("activation", "variance"),
    [
        (fnn.relu, 2 / 400),
        (fnn.leaky_relu(0.2), 2 / 400),
        (fnn.gelu, 2 / 400),
        (fnn.silu, 2 / 400),
        (fnn.tanh, 2 / 1000),
        (fnn.sigmoid, 2 / 1000),
    ],
    ids=["relu", "leaky_relu", "gelu", "silu", "tanh", "sigmoid"],
)
def test_he_for_the_relu_family_and_xavier_for_the_others(activation, variance):
    params, _ = fnn.mlp((400, 600, 600), activation).init(KEY)
    np.testing.assert_allclose(params[0].kernel.var(), variance, rtol=0.03)
    np.testing.assert_allclose(params[2].kernel.var(), 2 / 1200, rtol=0.03)


def test_perceptron_is_a_single_neuron():
    model = fnn.perceptron(3)
    params = ((fnn.LinearParams(jnp.array([[0.2], [0.8], [-0.5]], WIDEST), jnp.array([2.0], WIDEST))), ())
    y, _, _ = model.forward(params, ((), ()), jnp.array([[1.0, 2.0, 3.0]], WIDEST), train=False)
    np.testing.assert_allclose(y, [[0.9088770389851438]], rtol=1e-6)


def test_any_depth():
    model = fnn.mlp((3, *[4] * 60, 1), fnn.tanh)
    assert model.forward(*model.init(KEY), X, train=False)[0].shape == (5, 1)


def test_equal_calls_give_the_same_model():
    for build in (
        lambda: fnn.linear(3, out_features=2),
        lambda: fnn.batch_norm(3),
        lambda: fnn.dropout(0.1),
        lambda: fnn.leaky_relu(0.2),
        lambda: fnn.repeat(fnn.skip(fnn.linear(3, 3)), 4),
        lambda: fnn.mlp([3, 4, 4, 2], fnn.leaky_relu(), normalization=fnn.layer_norm, skip=True, dropout=0.1),
        lambda: fnn.adam(1e-3),
        lambda: fnn.nesterov(learning_rate=1e-3),
        lambda: fnn.manual_value_and_grad(fnn.mlp((3, 2)), loss=fnn.mean_squared_error),
    ):
        assert build() == build()
        assert hash(build()) == hash(build())


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, KEY)[0]))


def test_gpt_has_the_parameters_of_gpt_2():
    assert count(fnn.gpt(50257, 1024, 768, 12, 12)) == 124_439_808
    assert count(fnn.gpt(50257, 1024, 1024, 16, 24)) == 354_823_168
    assert fnn.gpt(7, 6, 4, 2, 3) == fnn.gpt(7, 6, features=4, heads=2, layers=3)


def test_a_cnn_without_pooling_computes_in_the_dtype_asked_for_and_ends_in_its_output_layer():
    model = fnn.cnn(1, (2,), 3, pooling=None, output=fnn.softmax, compute_dtype=jnp.bfloat16)
    names = [leaf.name.split(" ", 1)[1] for leaf in leaf_layers(model)]
    assert names == ["conv2d", "relu", "global_avg_pool", "linear", "softmax"]
    params, state = model.init(KEY)
    x = jax.random.normal(KEY, (2, 6, 6, 1), WIDEST)
    y = fnn.predict(model, params, state, x)
    assert y.dtype == WIDEST
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-2)
    wide = fnn.predict(fnn.cnn(1, (2,), 3, pooling=None, output=fnn.softmax), params, state, x)
    assert 0 < largest_gap(y, wide) < 0.02


def test_the_program_of_a_gpt_does_not_grow_with_its_layers():
    def program(layers):
        model = fnn.gpt(7, 6, 4, 2, layers, dropout=0.1)
        gradient = fnn.manual_value_and_grad(model, fnn.softmax_cross_entropy)
        tokens = jnp.zeros((2, 6), int)
        return str(jax.make_jaxpr(gradient)(*jax.eval_shape(model.init, KEY), (tokens, tokens), key=KEY)).count("\n")

    assert program(2) == program(48)


def test_the_gradient_of_a_gpt_is_autodiff_s_and_that_of_its_tied_table_the_sum_of_its_uses():
    tied = fnn.gpt(7, 6, 4, 2, 2)
    apart = fnn.serial(*tied.spec.parts)
    tokens = jnp.array([[0, 3, 3, 6], [5, 3, 1, 0]])
    params, state, _ = drawn(LayerCase("gpt", tied, (4,), jnp.int32))

    @jax.jit
    def gradients(params):
        batch, loss = (tokens, tokens), fnn.softmax_cross_entropy
        by_hand = fnn.manual_value_and_grad(tied, loss)(params, state, batch)[1]
        by_autodiff = fnn.autodiff_value_and_grad(tied, loss)(params, state, batch)[1]
        return by_hand, by_autodiff, fnn.manual_value_and_grad(apart, loss)((*params, params[0]), state, batch)[1]

    by_hand, by_autodiff, (first, *_, last) = gradients(params)
    assert relative_gap(by_hand, by_autodiff) <= (1e-12 if jnp.float64 == WIDEST else 1e-5)
    np.testing.assert_allclose(by_hand[0].table, first.table + last.table, atol=1e-6)
    assert (first.table != 0).any(axis=1).tolist() == [True, True, False, True, False, True, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((7, 6, 6, 4, 2), r"gpt\(heads\): expected a divisor of the 6 features, got 4"),
        ((7, 6, 4, 2, 0), r"gpt\(layers\): expected a positive integer, got 0"),
        ((7, 6.5, 4, 2, 1), r"gpt\(context\): expected a positive integer, got 6.5"),
    ],
)
def test_bad_sizes_of_a_gpt(settings, message, as_for_users):
    with pytest.raises((ValueError, TypeError), match=message):
        fnn.gpt(*settings)
