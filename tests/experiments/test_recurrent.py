"""The problems of the topic on recurrent networks, and its measurement of gradients on a known case."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.recurrent import (
    BLANKS,
    COPIED,
    IGNORED,
    LAGS,
    PLAIN,
    STEPS,
    SYMBOLS,
    draw_addends,
    draw_copies,
    gradients_through_time,
    smooth,
)


def test_the_sum_is_that_of_the_two_marked_numbers():
    for lag in LAGS:
        x, y = draw_addends(jax.random.key(0), jnp.array(lag))
        values, marks = np.moveaxis(np.asarray(x), -1, 0)
        before, half = LAGS[-1] - lag, LAGS[-1] - lag // 2
        np.testing.assert_array_equal(marks[:, before:half].sum(1), 1)
        np.testing.assert_array_equal(marks[:, half:].sum(1), 1)
        np.testing.assert_array_equal(marks.sum(1), 2)
        np.testing.assert_allclose(y[:, 0], (values * marks).sum(1), rtol=1e-6)


def test_the_symbols_are_the_labels_after_the_blanks():
    for blanks in BLANKS:
        x, y = draw_copies(jax.random.key(0), jnp.array(blanks))
        tokens, labels = np.asarray(x).argmax(-1), np.asarray(y)
        mark = tokens.shape[1] - COPIED
        symbols = tokens[:, mark - blanks - COPIED : mark - blanks]
        np.testing.assert_array_equal(symbols, labels[:, mark:])
        np.testing.assert_array_equal(labels[:, :mark], IGNORED)
        np.testing.assert_array_equal(tokens[:, mark - blanks : mark], SYMBOLS)
        np.testing.assert_array_equal(tokens[:, mark], SYMBOLS + 1)


def test_a_contracting_kernel_shrinks_the_gradient_at_every_step():
    sizes = np.asarray(gradients_through_time(PLAIN, jax.random.split(jax.random.key(0), 3), 0.9, 1.0))
    assert sizes.shape == (3, STEPS + 1)
    np.testing.assert_allclose(sizes[:, -1], 1, rtol=1e-6)
    large = sizes[:, :-1] > 1e-30  # below it float32 has fewer digits
    assert ((sizes[:, :-1] <= 0.9 * sizes[:, 1:] * (1 + 1e-5)) | ~large).all()


def test_an_orthogonal_kernel_keeps_the_gradient_of_tiny_inputs():
    sizes = gradients_through_time(PLAIN, jax.random.split(jax.random.key(0), 3), 1.0, 1e-6)
    np.testing.assert_allclose(sizes, 1, rtol=1e-4)


def test_smoothing_takes_means_of_consecutive_steps():
    np.testing.assert_array_equal(smooth(np.arange(7.0)[None], width=3), [[1.0, 4.0]])
