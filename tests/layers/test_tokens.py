"""Tokens and positions: rows and their gradients by NumPy, and what tokens outside the vocabulary get."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.layers.recurrent import last_step
from tests.cases import KEY, WIDEST

TABLE = jax.random.normal(KEY, (5, 3), WIDEST)
TOKENS = jnp.array([[0, 4, 4], [2, 4, 0]])
LAYER = fnn.embedding(5, 3)
STATE = ((), ())


def test_a_row_s_gradient_is_the_sum_over_its_occurrences():
    dy = np.asarray(jax.random.normal(KEY, (2, 3, 3), WIDEST))

    @jax.jit
    def run(tokens):
        y, residuals = fnn.embedding_forward(fnn.EmbeddingParams(TABLE), tokens)
        return y, fnn.embedding_backward(residuals, jnp.asarray(dy)).table

    y, dtable = run(TOKENS)
    np.testing.assert_array_equal(y, np.asarray(TABLE)[np.asarray(TOKENS)])
    expected = np.zeros((5, 3))
    for place, token in np.ndenumerate(np.asarray(TOKENS)):
        expected[token] += dy[place]
    np.testing.assert_allclose(dtable, expected, atol=1e-6)
    # Under jit no value is known: an unknown token's row is no number, and its gradient goes nowhere.
    y, dtable = run(jnp.array([[0, 5, -1], [0, 0, 0]]))
    assert np.isnan(y[0, 1:]).all()
    assert np.isfinite(y[1]).all()
    np.testing.assert_array_equal(dtable[1:], 0)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8])
def test_narrow_tokens_reach_a_large_vocabulary(dtype):
    params = fnn.EmbeddingParams(jnp.arange(300.0)[:, None])
    assert fnn.embedding_forward(params, jnp.array([[100]], dtype))[0].item() == 100


def test_positions_by_numpy():
    x = jnp.zeros((2, 4, 6), WIDEST)
    waves = np.asarray(fnn.sinusoidal_positions(8, 6).forward((), (), x, train=True)[0])
    angles = np.arange(4)[:, None] / 10000 ** (2 * np.arange(3) / 6)
    np.testing.assert_allclose(waves[1, :, 0::2], np.sin(angles), atol=1e-6)
    np.testing.assert_allclose(waves[1, :, 1::2], np.cos(angles), atol=1e-6)
    params = fnn.PositionParams(jax.random.normal(KEY, (8, 6), WIDEST))
    np.testing.assert_array_equal(fnn.learned_positions_forward(params, x)[0][1], params.table[:4])


def forward(layer, x):
    return layer.forward(*layer.init(KEY), x, train=True)


UNKNOWN = r"embedding\(5, 3\): expected tokens from 0 to 4, got 5 at index \(0, 1\) \(2 such in all\). Renumber"
BAD = {
    "floats": (
        lambda: forward(LAYER, TOKENS.astype(float)),
        r"embedding\(5, 3\): expected tokens of an integer dtype, got float\d+ of shape \(2, 3\).*x\.astype\(int\)",
    ),
    "bits": (lambda: forward(LAYER, TOKENS > 2), "expected tokens of an integer dtype, got bool"),
    "no token": (lambda: forward(LAYER, TOKENS[:, :0]), r"expected at least one token, .*got shape \(2, 0\)"),
    "a scalar": (lambda: forward(LAYER, jnp.array(3)), r"expected at least one token, .*x\[None\]"),
    "an unknown token": (lambda: forward(LAYER, TOKENS.at[0, 1:].set(5)), UNKNOWN),
    "a token below 0": (lambda: forward(LAYER, TOKENS - 1), "expected tokens from 0 to 4, got -1"),
    "a longer sequence": (
        lambda: forward(fnn.learned_positions(2, 3), jnp.ones((1, 3, 3))),
        r"learned_positions\(2, 3\): expected sequences of at most 2 positions, got 3\. Cut them, x\[:, -2:\]",
    ),
    "a longer sequence of waves": (
        lambda: forward(fnn.sinusoidal_positions(2, 3), jnp.ones((1, 3, 3))),
        r"sinusoidal_positions\(2, 3\): expected sequences of at most 2 positions, got 3",
    ),
    "no time axis": (lambda: forward(fnn.rotary, jnp.ones((3, 4))), r"rotary: expected sequences of shape \(batch, t"),
    "another width": (
        lambda: forward(fnn.unembedding(5, 3), jnp.ones((1, 2, 4))),
        r"unembedding\(5, 3\): expected x of shape \(batch, \.\.\., 3\), got \(1, 2, 4\)",
    ),
    "no vocabulary": (lambda: fnn.embedding(0, 3), r"embedding\(vocabulary_size\): expected a positive integer, got 0"),
    "half a position": (
        lambda: fnn.learned_positions(2.5, 3),
        r"learned_positions\(length\): expected a positive",
    ),
    "a table of another shape": (
        lambda: fnn.embedding(5, 3, table_init=lambda key, shape: jnp.ones((3, 5))).init(KEY),
        r"embedding\(table_init\): expected a function that draws a table of shape \(5, 3\)",
    ),
    "one layer tied": (lambda: fnn.tied(LAYER), "tied: expected at least two layers, the first and the last, got 1"),
    "no layer tied": (
        lambda: fnn.tied(LAYER, fnn.unembedding),
        r"tied\(layers\[1\]\): expected a layer, got",
    ),
    "another table": (
        lambda: fnn.tied(LAYER, fnn.unembedding(4, 3)).init(KEY),
        r"tied: the last layer's parameters: expected float\d+ of shape \(5, 3\) at \.table, like the first layer's, "
        r"got float\d+ of shape \(4, 3\)",
    ),
    "parameters for both uses": (
        lambda: fnn.tied(LAYER, fnn.unembedding(5, 3)).forward((TABLE, TABLE), STATE, TOKENS, train=True),
        "tied: expected params as a tuple of 1 entries, got tuple",
    ),
    "no swiglu": (lambda: fnn.swiglu(4, -1), r"swiglu\(hidden_features\): expected a positive integer, got -1"),
    "a step for a sequence": (lambda: forward(last_step, jnp.ones((3, 4))), "last_step: expected sequences"),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input(call, message, as_for_users):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
