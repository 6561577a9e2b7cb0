"""The gated recurrent unit: a mean of the last output and of a candidate, weighted by a gate."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from funcnn._checks import check_vectors
from funcnn._memoise import memoised
from funcnn.layers.initializers import xavier
from funcnn.layers.recurrent import (
    Hidden,
    Inputs,
    StepHidden,
    StepInputs,
    along_features,
    checked_recurrent,
    recurrent_init,
    recurrent_settings,
    recurrent_spec,
    start_hidden,
    steps_before,
    sum_of_products,
    sum_over_rows,
    time_first,
    time_second_to_last,
)
from funcnn.types import Decoding, KernelInit, Layer


class GRUParams(NamedTuple):
    """The parameters of ``gru``, with columns in the order reset, update, candidate. Also the type of their gradients.

    ``input_kernel`` is ``(in_features, 3 · features)``, ``hidden_kernel`` ``(features, 3 · features)``, ``bias``
    ``(3 · features,)``, and ``hidden_bias`` ``(features,)``, inside the product of the candidate with the reset gate.
    """

    input_kernel: Float[Array, "in_features columns"]
    hidden_kernel: Float[Array, "features columns"]
    bias: Float[Array, " columns"]
    hidden_bias: Float[Array, " features"]


class GRUResiduals(NamedTuple):
    """The inputs, the outputs h, the gates and the candidate's h U + hidden_bias of every step, and the kernels.

    The former are time first. ``gates`` are r, z and n after their activation, ``(time, batch, ..., 3 · features)``.
    """

    x: StepInputs
    hidden: StepHidden
    gates: Float[Array, "time *batch columns"]
    recalled: StepHidden
    input_kernel: Float[Array, "in_features columns"]
    hidden_kernel: Float[Array, "features columns"]


def gru_forward(params: GRUParams, x: Inputs) -> tuple[Hidden, GRUResiduals]:
    """Compute a gated recurrent unit from h[−1] = 0, and return all h.

    With W, U and b in three blocks of columns, reset, update, candidate::

        r = σ(x[t] W_r + h[t−1] U_r + b_r)
        z = σ(x[t] W_z + h[t−1] U_z + b_z)
        n = tanh(x[t] W_n + b_n + r (h[t−1] U_n + hidden_bias))
        h[t] = (1 − z) n + z h[t−1]

    The reset gate is applied after the product with U, as in PyTorch, Flax and Keras; in the paper it is before.

    Args:
        params: W ``(in_features, 3 · features)``, U ``(features, 3 · features)``, b ``(3 · features,)`` and hidden_bias
            ``(features,)``.
        x: ``(batch, ..., time, in_features)``, in the parameters' dtype.

    Returns:
        y, the h of every step, ``(batch, ..., time, features)``, and the residuals.

    Raises:
        ValueError, TypeError: x doesn't fit the parameters, or the parameters each other.

    Example:
        >>> params = GRUParams(jnp.ones((1, 3)), jnp.zeros((1, 3)), jnp.zeros(3), jnp.zeros(1))
        >>> y, residuals = gru_forward(params, jnp.array([[[1.0], [1.0]]]))
        >>> [round(float(h), 3) for h in y.ravel()]
        [0.205, 0.355]

    Source:
        Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
        2014.
    """
    return _run_gru(params, x, None)[:2]


def _run_gru(params, x, start):
    x = checked_recurrent("gru", params, x, blocks=3)
    features = params.hidden_kernel.shape[0]
    check_vectors("gru", params.hidden_kernel.dtype, features, hidden_bias=params.hidden_bias)
    x = time_first(x)
    inputs = x @ params.input_kernel + along_features(params.bias, x)
    zeros = jnp.zeros((*inputs.shape[1:-1], features), x.dtype)

    def step(h, given):
        recurrent = h @ params.hidden_kernel
        gates = lax.logistic(given[..., : 2 * features] + recurrent[..., : 2 * features])
        r, z = jnp.split(gates, 2, axis=-1)
        recalled = recurrent[..., 2 * features :] + along_features(params.hidden_bias, h)
        n = jnp.tanh(given[..., 2 * features :] + r * recalled)
        h = (1 - z) * n + z * h
        return h, (h, jnp.concatenate([r, z, n], axis=-1), recalled)

    last, (hidden, gates, recalled) = lax.scan(step, zeros if start is None else start, inputs)
    residuals = GRUResiduals(x, hidden, gates, recalled, params.input_kernel, params.hidden_kernel)
    return time_second_to_last(hidden), residuals, last


def gru_backward(residuals: GRUResiduals, dy: Hidden) -> tuple[GRUParams, Inputs]:
    """Gradients of the GRU, from the last step to the first.

    With a for the pre-activations, m[t] = h[t−1] U_n + c, c the hidden bias, and h[t] an output, an input of the gates
    of the next step and a part of the next h::

        da_n = dh (1 − z) (1 − n²),    da_z = dh (h[t−1] − n) z (1 − z)
        dm = da_n r,                   da_r = da_n m r (1 − r)
        dh[t−1] = dy[t−1] + dh z + da_r U_rᵀ + da_z U_zᵀ + dm U_nᵀ

    Summed over time and samples::

        dW = Σₜ x[t]ᵀ (da_r, da_z, da_n),    db = Σₜ (da_r, da_z, da_n)
        dU = Σₜ h[t−1]ᵀ (da_r, da_z, dm),    dc = Σₜ dm,    dx = (da_r, da_z, da_n) Wᵀ

    Args:
        residuals: from ``gru_forward``.
        dy: cotangent of y, ``(batch, ..., time, features)``.

    Returns:
        The gradients of the parameters, and ``dx``.

    Example:
        >>> params = GRUParams(jnp.ones((1, 3)), jnp.zeros((1, 3)), jnp.zeros(3), jnp.zeros(1))
        >>> _, residuals = gru_forward(params, jnp.array([[[1.0], [1.0]]]))
        >>> dparams, dx = gru_backward(residuals, jnp.array([[[0.0], [1.0]]]))
        >>> [round(float(number), 3) for number in dx.ravel()]
        [-0.027, 0.003]

    Source:
        Cho et al. 2014.
    """
    x, hidden, gates, recalled, input_kernel, hidden_kernel = residuals
    features = hidden.shape[-1]

    def step(dh, given):
        dy, gates, recalled, before = given
        r, z, n = jnp.split(gates, 3, axis=-1)
        dh = dy + dh
        dcandidate = dh * (1 - z) * (1 - n * n)
        drecalled = dcandidate * r
        dgates = [dcandidate * recalled * r * (1 - r), dh * (before - n) * z * (1 - z)]
        through_hidden = jnp.concatenate([*dgates, drecalled], axis=-1)
        dz = jnp.concatenate([*dgates, dcandidate], axis=-1)
        return dh * z + through_hidden @ hidden_kernel.T, (dz, through_hidden)

    before = steps_before(hidden)
    given = (time_first(dy), gates, recalled, before)
    _, (dz, through_hidden) = lax.scan(step, jnp.zeros_like(before[0]), given, reverse=True)
    dparams = GRUParams(
        input_kernel=sum_of_products(x, dz),
        hidden_kernel=sum_of_products(before, through_hidden),
        bias=sum_over_rows(dz),
        hidden_bias=sum_over_rows(through_hidden)[2 * features :],
    )
    return dparams, time_second_to_last(dz @ input_kernel.T)


def _gru_init(key, *, features, **settings):
    params = recurrent_init(key, name="gru", features=features, blocks=3, **settings)
    return GRUParams(*params, hidden_bias=jnp.zeros(features, params.bias.dtype)), ()


def _gru_layer_forward(params, state, x, *, train, key=None):
    y, residuals = gru_forward(params, x)
    return y, state, residuals


def _gru_slopes(residuals, y):
    """Return the slopes of all gates over their largest: 4 σ (1 − σ) and 1 − tanh²."""
    r, z, n = jnp.split(residuals.gates, 3, axis=-1)
    return jnp.concatenate([4 * r * (1 - r), 4 * z * (1 - z), 1 - n * n], axis=-1)


def _gru_advance(params, h, x):
    y, _, last = _run_gru(params, x, h)
    return y, last


@memoised
def gru(in_features: int, features: int, kernel_init: KernelInit = xavier) -> Layer:
    """A gated recurrent unit, which starts from zero and returns the h of every step.

    With the reset gate r, the update gate z and the candidate n (``gru_forward``)::

        h[t] = (1 − z) n + z h[t−1]

    Args:
        in_features: features of x.
        features: features of h.
        kernel_init: ``(key, shape) -> kernel``, drawn for each gate; the hidden kernels start orthogonal, biases at 0.

    Returns:
        The layer, from ``(batch, time, in_features)`` to ``(batch, time, features)``. Its parameters are
        ``GRUParams(input_kernel, hidden_kernel, bias, hidden_bias)`` with columns in the order reset, update,
        candidate; it has no state.

    Raises:
        ValueError, TypeError: a feature count isn't a positive integer, or kernel_init isn't a function.

    Example:
        >>> import jax
        >>> layer = gru(3, 4)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jnp.ones((2, 5, 3)), train=True)[0].shape
        (2, 5, 4)

    Source:
        Cho et al. 2014.
    """
    settings = recurrent_settings("gru", in_features, features, kernel_init)
    spec = recurrent_spec("gru", settings, _gru_slopes, Decoding(start_hidden, _gru_advance))
    return Layer(partial(_gru_init, **settings), _gru_layer_forward, gru_backward, spec)
