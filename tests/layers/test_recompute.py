"""Recomputation: the same gradients from less memory."""

import jax
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST, largest_gap

X = jax.random.normal(KEY, (5, 8), WIDEST)
BLOCK = fnn.serial(fnn.linear(8, 32), fnn.tanh, fnn.linear(32, 32), fnn.tanh, fnn.linear(32, 8))


def step(model):
    gradient = fnn.manual_value_and_grad(model, fnn.mean_squared_error)
    return jax.jit(lambda params, state, key=KEY: gradient(params, state, (X, X), key=key))


def test_the_input_is_all_that_is_kept():
    params, state = BLOCK.init(KEY)
    _, _, kept = fnn.recompute(BLOCK).forward(params, state, X, train=True, key=KEY)
    own = {id(leaf) for leaf in jax.tree.leaves((params, state))}
    others = [leaf for leaf in jax.tree.leaves(kept) if id(leaf) not in own]
    assert len(others) == 2
    assert others[0] is X
    assert others[1] is KEY


def test_random_layers_draw_the_same_again():
    block = fnn.serial(fnn.linear(8, 8), fnn.dropout(0.5), fnn.batch_norm(8))
    params, state = block.init(KEY)
    assert largest_gap(step(fnn.recompute(block))(params, state), step(block)(params, state)) < 1e-6


def memory(model):
    arguments = jax.eval_shape(model.init, KEY)
    return step(model).lower(*arguments).compile().memory_analysis().temp_size_in_bytes


def test_a_deep_network_takes_less_memory():
    deep, recomputed = fnn.repeat(BLOCK, 50), fnn.repeat(fnn.recompute(BLOCK), 50)
    assert memory(recomputed) < 0.7 * memory(deep)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="what XLA's CPU compiler recognises, others may not")
def test_outside_repeat_a_cpu_keeps_what_it_would_compute_again():
    """As the docstring says; where that ends, it has to say something else."""
    two, recomputed = fnn.serial(BLOCK, BLOCK), fnn.serial(fnn.recompute(BLOCK), fnn.recompute(BLOCK))
    assert memory(recomputed) >= memory(two)


def test_it_is_one_layer_to_whoever_looks_inside():
    summary = fnn.summarize(fnn.serial(fnn.recompute(BLOCK), fnn.relu), (5, 8))
    assert [row.name for row in summary.rows] == ["layers[0] recompute", "layers[1] relu"]
    np.testing.assert_equal(summary.rows[0].residual_bytes, 5 * 8 * 4 + jax.random.key_data(KEY).nbytes)
