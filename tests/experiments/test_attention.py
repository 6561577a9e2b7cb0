"""The problems of the topic on attention have the answers that their labels say."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import attention
from experiments.attention import ALPHABET, CONTEXT, INDUCTION_BATCH, KEYS, RECALL_BATCH, VALUES


def test_the_label_is_the_value_of_the_pair_with_the_key():
    x, y = map(np.asarray, attention.draw_pairs(jax.random.key(0), jnp.zeros(1)))
    assert x.shape == (RECALL_BATCH, KEYS + 1)
    keys, values = x[:, :-1] // VALUES, x[:, :-1] % VALUES
    np.testing.assert_array_equal(np.sort(keys, 1), np.tile(np.arange(KEYS), (RECALL_BATCH, 1)))
    asked = x[:, -1:] - KEYS * VALUES
    np.testing.assert_array_equal(values[keys == asked], y)


def test_a_walk_without_jumps_has_one_successor_for_each_symbol(monkeypatch):
    monkeypatch.setattr(attention, "JUMP", 0.0)
    x, y = map(np.asarray, attention.draw_walks(jax.random.key(0), jnp.zeros(1)))
    assert x.shape == y.shape == (INDUCTION_BATCH, CONTEXT)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    for now, following in zip(x, y, strict=True):
        pairs = set(zip(now.tolist(), following.tolist(), strict=True))
        assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})
    assert len({tuple(row) for row in y}) > 1
    assert set(np.unique(x)) <= set(range(ALPHABET))
