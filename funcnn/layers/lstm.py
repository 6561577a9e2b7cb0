"""Long short-term memory: a cell that is multiplied by a gate at each step."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from funcnn._checks import check_real
from funcnn._memoise import memoised
from funcnn.layers.initializers import xavier
from funcnn.layers.recurrent import (
    Hidden,
    Inputs,
    RecurrentParams,
    StepHidden,
    StepInputs,
    along_features,
    checked_recurrent,
    gradients_over_time,
    recurrent_init,
    recurrent_settings,
    recurrent_spec,
    start_hidden,
    steps_before,
    time_first,
    time_second_to_last,
)
from funcnn.types import Decoding, KernelInit, Layer


class LSTMResiduals(NamedTuple):
    """The inputs, the outputs h, the cells c and the gates of every step, time first, and the kernels.

    ``gates`` are the four blocks after their activation, ``(time, batch, ..., 4 · features)``.
    """

    x: StepInputs
    hidden: StepHidden
    cells: StepHidden
    gates: Float[Array, "time *batch columns"]
    input_kernel: Float[Array, "in_features columns"]
    hidden_kernel: Float[Array, "features columns"]


class LSTMCarry(NamedTuple):
    """h and c after a step, each ``(batch, ..., features)``."""

    hidden: Array
    cell: Array


def lstm_forward(params: RecurrentParams, x: Inputs) -> tuple[Hidden, LSTMResiduals]:
    """Compute a long short-term memory from h[−1] = c[−1] = 0, and return all h.

    With the four blocks of x[t] W + h[t−1] U + b in the order input, forget, cell, output::

        i = σ(z_i),    f = σ(z_f),    g = tanh(z_g),    o = σ(z_o)
        c[t] = f c[t−1] + i g
        h[t] = o tanh(c[t])

    Args:
        params: W ``(in_features, 4 · features)``, U ``(features, 4 · features)`` and b ``(4 · features,)``.
        x: ``(batch, ..., time, in_features)``, in the parameters' dtype.

    Returns:
        y, the h of every step, ``(batch, ..., time, features)``, and the residuals.

    Raises:
        ValueError, TypeError: x doesn't fit the parameters, or the parameters each other.

    Example:
        >>> params = RecurrentParams(jnp.ones((1, 4)), jnp.zeros((1, 4)), jnp.zeros(4))
        >>> y, residuals = lstm_forward(params, jnp.array([[[1.0], [1.0]]]))
        >>> [round(float(h), 3) for h in y.ravel()]
        [0.37, 0.545]

    Source:
        Hochreiter and Schmidhuber, "Long short-term memory", 1997; Gers, Schmidhuber and Cummins, "Learning to forget",
        2000, for the forget gate.
    """
    return _run_lstm(params, x, None)[:2]


def _run_lstm(params, x, start):
    x = checked_recurrent("lstm", params, x, blocks=4)
    x = time_first(x)
    inputs = x @ params.input_kernel + along_features(params.bias, x)
    zeros = jnp.zeros((*inputs.shape[1:-1], params.hidden_kernel.shape[0]), x.dtype)

    is_cell = _is_cell(inputs)

    def step(carry, given):
        z = given + carry.hidden @ params.hidden_kernel
        # XLA computes both functions of whole rows in less time than each of its columns.
        gates = jnp.where(is_cell, jnp.tanh(z), lax.logistic(z))
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        cell = f * carry.cell + i * g
        hidden = o * jnp.tanh(cell)
        return LSTMCarry(hidden, cell), (hidden, cell, gates)

    last, (hidden, cells, gates) = lax.scan(step, LSTMCarry(zeros, zeros) if start is None else start, inputs)
    residuals = LSTMResiduals(x, hidden, cells, gates, params.input_kernel, params.hidden_kernel)
    return time_second_to_last(hidden), residuals, last


def _is_cell(columns: Array) -> Array:
    """Return where the columns are those of g, the third block, whose activation is tanh; of one row."""
    number = jnp.arange(columns.shape[-1]) // (columns.shape[-1] // 4)
    return along_features(number == 2, columns[0])


def lstm_backward(residuals: LSTMResiduals, dy: Hidden) -> tuple[RecurrentParams, Inputs]:
    """Gradients of the LSTM, from the last step to the first.

    h[t] is an output and enters the gates of the next step; c[t] enters h[t] and the next cell::

        dh[t] = dy[t] + dz[t+1] Uᵀ
        dc[t] = dh[t] o (1 − tanh²(c[t])) + dc[t+1] f[t+1]

    With σ′ = σ (1 − σ) and 1 − tanh², the slope of tanh, the four blocks of dz[t] are::

        dz_i = dc g i (1 − i),          dz_f = dc c[t−1] f (1 − f)
        dz_g = dc i (1 − g²),           dz_o = dh tanh(c) o (1 − o)

    The gradients of W, U and b are the sums over time of ``rnn_backward``.

    Args:
        residuals: from ``lstm_forward``.
        dy: cotangent of y, ``(batch, ..., time, features)``.

    Returns:
        The gradients of the parameters, and ``dx``.

    Example:
        >>> params = RecurrentParams(jnp.ones((1, 4)), jnp.zeros((1, 4)), jnp.zeros(4))
        >>> _, residuals = lstm_forward(params, jnp.array([[[1.0], [1.0]]]))
        >>> dparams, dx = lstm_backward(residuals, jnp.array([[[0.0], [1.0]]]))
        >>> [round(float(number), 3) for number in dx.ravel()]
        [0.108, 0.33]

    Source:
        Hochreiter and Schmidhuber 1997; Greff, Srivastava, Koutník, Steunebrink and Schmidhuber, "LSTM: a search space
        odyssey", 2017, section II.B.
    """
    x, hidden, cells, gates, input_kernel, hidden_kernel = residuals

    def step(carry, given):
        dh, dcell = carry
        dy, gates, cell, cell_before = given
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        squashed = jnp.tanh(cell)
        dh = dy + dh
        dcell = dcell + dh * o * (1 - squashed * squashed)
        # The four blocks of dz at once, as the gates in the forward pass.
        incoming = jnp.concatenate([dcell, dcell, dcell, dh], axis=-1)
        factors = jnp.concatenate([g, cell_before, i, squashed], axis=-1)
        dz = incoming * factors * jnp.where(is_cell, 1 - gates * gates, gates * (1 - gates))
        return (dz @ hidden_kernel.T, dcell * f), dz

    zeros, is_cell = jnp.zeros_like(cells[0]), _is_cell(gates)
    _, dz = lax.scan(step, (zeros, zeros), (time_first(dy), gates, cells, steps_before(cells)), reverse=True)
    return gradients_over_time(x, hidden, dz, input_kernel)


def _lstm_init(key, *, features, forget_bias, **settings):
    params = recurrent_init(key, name="lstm", features=features, blocks=4, **settings)
    bias = params.bias.at[features : 2 * features].set(forget_bias)
    return params._replace(bias=bias), ()


def _lstm_layer_forward(params, state, x, *, train, key=None):
    y, residuals = lstm_forward(params, x)
    return y, state, residuals


def _lstm_slopes(residuals, y):
    """Return the slopes of all gates over their largest: 4 σ (1 − σ) and 1 − tanh²."""
    i, f, g, o = jnp.split(residuals.gates, 4, axis=-1)
    return jnp.concatenate([4 * i * (1 - i), 4 * f * (1 - f), 1 - g * g, 4 * o * (1 - o)], axis=-1)


def _lstm_start(params, samples, length):
    zeros = start_hidden(params, samples, length)
    return LSTMCarry(zeros, zeros)


def _lstm_advance(params, carry, x):
    y, _, last = _run_lstm(params, x, carry)
    return y, last


@memoised
def lstm(in_features: int, features: int, kernel_init: KernelInit = xavier, forget_bias: float = 1.0) -> Layer:
    """A long short-term memory, which starts from zero and returns the h of every step.

    With the gates i, f and o and the candidate g (``lstm_forward``)::

        c[t] = f c[t−1] + i g,    h[t] = o tanh(c[t])

    A step multiplies the cell by the forget gate and adds to it, so gradients pass through many steps where the gate is
    near 1.

    Args:
        in_features: features of x.
        features: features of h and of the cell.
        kernel_init: ``(key, shape) -> kernel``, drawn for each gate; the hidden kernels start orthogonal.
        forget_bias: the bias of the forget gate at the start, a Python float; the other biases are 0.

    Returns:
        The layer, from ``(batch, time, in_features)`` to ``(batch, time, features)``. Its parameters are
        ``RecurrentParams(input_kernel, hidden_kernel, bias)`` with columns in the order input, forget, cell, output; it
        has no state.

    Raises:
        ValueError, TypeError: a feature count isn't a positive integer, kernel_init isn't a function, or forget_bias
            isn't a finite number.

    Example:
        >>> import jax
        >>> layer = lstm(3, 4)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jnp.ones((2, 5, 3)), train=True)[0].shape
        (2, 5, 4)

    Source:
        Hochreiter and Schmidhuber 1997; Jozefowicz, Zaremba and Sutskever, "An empirical exploration of recurrent
        network architectures", 2015, for the forget gate's bias of 1.
    """
    check_real("lstm(forget_bias)", forget_bias)
    settings = {**recurrent_settings("lstm", in_features, features, kernel_init), "forget_bias": forget_bias}
    spec = recurrent_spec("lstm", settings, _lstm_slopes, Decoding(_lstm_start, _lstm_advance))
    return Layer(partial(_lstm_init, **settings), _lstm_layer_forward, lstm_backward, spec)
