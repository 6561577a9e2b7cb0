"""The n-gram models are probabilities, and the windows of the text are followed by its next characters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.shared.characters import cut_windows, python_topics, window_drawer
from experiments.shared.ngrams import count_ngrams, ngram_losses


def test_probabilities_add_up_to_one_in_every_context():
    text = np.random.default_rng(0).integers(0, 4, 200) % 3  # token 0 is twice as frequent; 3 never occurs
    counts = count_ngrams(text, 4, 3)
    contexts = np.array([(first, second) for first in range(4) for second in range(4)])
    for order in (1, 2, 3):
        last = [
            ngram_losses(counts, np.column_stack([contexts, np.full(16, token)]), order)[:, -1] for token in range(4)
        ]
        np.testing.assert_allclose(np.exp(-np.array(last)).sum(0), 1, rtol=1e-12)


def test_a_bigram_by_hand():
    # In 0 1 0 1 0 0: six tokens, of two kinds; 0 is followed by 1 twice and by 0 once, so N = 3 and T = 2.
    counts = count_ngrams(np.array([0, 1, 0, 1, 0, 0]), 2, 2)
    alone = (2 + 2 / 2) / (6 + 2)
    np.testing.assert_allclose(np.exp(-ngram_losses(counts, np.array([[0, 1]]), 1)), [[alone]])
    np.testing.assert_allclose(np.exp(-ngram_losses(counts, np.array([[0, 1]]), 2)), [[(2 + 2 * alone) / (3 + 2)]])


def test_codes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="expected runs with codes below"):
        count_ngrams(np.array([0, 1]), 1000, 7)


def test_windows_hold_the_text_and_its_next_characters():
    text = python_topics()
    assert len(text.training) > 8 * len(text.test) > 300_000
    assert text.decode(text.encode("for x in")) == "for x in"
    x, y = window_drawer(5, 16)(jax.random.key(0), jnp.asarray(text.training))
    assert x.shape == y.shape == (5, 16)
    np.testing.assert_array_equal(x[:, 1:], y[:, :-1])
    whole = text.decode(text.training)
    assert all(text.decode(window) in whole for window in x)
    np.testing.assert_array_equal(cut_windows(np.arange(10), 3, 2), [[0, 1, 2, 3], [6, 7, 8, 9]])
