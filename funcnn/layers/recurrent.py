"""The recurrent layer: each step's output is computed from its input and from the output of the step before.

Backpropagation through time is written out: a scan from the last step to the first carries ∂L/∂h, and the gradients of
the kernels, which every step uses, are sums over all steps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from funcnn._checks import check_callable, check_key, check_vectors, describe, positive_integer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers._sequences import sequence_array
from funcnn.layers.activation_layer import no_params
from funcnn.layers.initializers import orthogonal_blocks, xavier
from funcnn.types import Decoding, KernelInit, Layer, LayerSpec

Inputs = Float[Array, "*batch time in_features"]
Hidden = Float[Array, "*batch time features"]
# Time first, as a scan takes and gives them: moving the axis of the gates would take as long as computing them.
StepInputs = Float[Array, "time *batch in_features"]
StepHidden = Float[Array, "time *batch features"]


class RecurrentParams(NamedTuple):
    """The parameters of ``rnn`` and ``lstm``, with one block of columns for each gate. Also the type of their
    gradients.

    ``input_kernel`` is ``(in_features, blocks · features)``, ``hidden_kernel`` ``(features, blocks · features)``,
    ``bias`` ``(blocks · features,)``. ``rnn`` has one block; ``lstm`` has four, in the order input, forget, cell,
    output.
    """

    input_kernel: Float[Array, "in_features columns"]
    hidden_kernel: Float[Array, "features columns"]
    bias: Float[Array, " columns"]


class RNNResiduals(NamedTuple):
    """The inputs and the outputs of every step, time first, and the kernels."""

    x: StepInputs
    hidden: StepHidden
    input_kernel: Float[Array, "in_features features"]
    hidden_kernel: Float[Array, "features features"]


def rnn_forward(params: RecurrentParams, x: Inputs) -> tuple[Hidden, RNNResiduals]:
    """Compute h[t] = tanh(x[t] W + h[t−1] U + b) from h[−1] = 0, and return all h.

    Args:
        params: W ``(in_features, features)``, U ``(features, features)`` and b ``(features,)``.
        x: ``(batch, ..., time, in_features)``, in the parameters' dtype.

    Returns:
        y, the h of every step, ``(batch, ..., time, features)``, and the residuals.

    Raises:
        ValueError, TypeError: x doesn't fit the parameters, or the parameters each other.

    Example:
        >>> params = RecurrentParams(jnp.array([[1.0]]), jnp.array([[0.5]]), jnp.array([0.0]))
        >>> print(rnn_forward(params, jnp.array([[[1.0], [0.0]]]))[0].ravel().round(3))
        [0.762 0.363]

    Source:
        Elman, "Finding structure in time", 1990.
    """
    return _run_rnn(params, x, None)[:2]


def _run_rnn(params, x, start):
    x = checked_recurrent("rnn", params, x, blocks=1)
    x = time_first(x)
    inputs = x @ params.input_kernel + along_features(params.bias, x)
    start = jnp.zeros(inputs.shape[1:], x.dtype) if start is None else start

    def step(h, given):
        h = jnp.tanh(given + h @ params.hidden_kernel)
        return h, h

    last, hidden = lax.scan(step, start, inputs)
    residuals = RNNResiduals(x, hidden, params.input_kernel, params.hidden_kernel)
    return time_second_to_last(hidden), residuals, last


def rnn_backward(residuals: RNNResiduals, dy: Hidden) -> tuple[RecurrentParams, Inputs]:
    """Gradients of h[t] = tanh(z[t]), z[t] = x[t] W + h[t−1] U + b, from the last step to the first.

    h[t] is an output and the input of the next step, so its gradient has two parts::

        dh[t] = dy[t] + dz[t+1] Uᵀ,    dz[t] = dh[t] (1 − h[t]²)

    Every step uses the same parameters, so their gradients add up over time, and over the samples::

        dW = Σₜ x[t]ᵀ dz[t],    dU = Σₜ h[t−1]ᵀ dz[t],    db = Σₜ dz[t],    dx[t] = dz[t] Wᵀ

    Args:
        residuals: from ``rnn_forward``.
        dy: cotangent of y, ``(batch, ..., time, features)``.

    Returns:
        The gradients of the parameters, and ``dx``.

    Example:
        >>> params = RecurrentParams(jnp.array([[1.0]]), jnp.array([[0.5]]), jnp.array([0.0]))
        >>> _, residuals = rnn_forward(params, jnp.array([[[0.0], [0.0]]]))
        >>> print(rnn_backward(residuals, jnp.array([[[0.0], [1.0]]]))[1].ravel())
        [0.5 1. ]

    Source:
        Rumelhart, Hinton and Williams 1986; Werbos, "Backpropagation through time: what it does and how to do it",
        1990.
    """
    x, hidden, input_kernel, hidden_kernel = residuals

    def step(dh, given):
        dy, h = given
        dz = (dy + dh) * (1 - h * h)
        return dz @ hidden_kernel.T, dz

    dy = time_first(dy)
    _, dz = lax.scan(step, jnp.zeros_like(dy[0]), (dy, hidden), reverse=True)
    return gradients_over_time(x, hidden, dz, input_kernel)


def gradients_over_time(
    x: StepInputs, hidden: StepHidden, dz: Array, input_kernel: Array
) -> tuple[RecurrentParams, Inputs]:
    """Return the gradients of z[t] = x[t] W + h[t−1] U + b, which are sums over samples and steps, and dx."""
    dparams = RecurrentParams(
        input_kernel=sum_of_products(x, dz),
        hidden_kernel=sum_of_products(steps_before(hidden), dz),
        bias=sum_over_rows(dz),
    )
    return dparams, time_second_to_last(dz @ input_kernel.T)


def sum_of_products(a: Array, b: Array) -> Array:
    """Return Σₙ a[n]ᵀ b[n] over samples and steps n, ``(features of a, features of b)``."""
    return a.reshape(a.size // a.shape[-1], a.shape[-1]).T @ b.reshape(b.size // b.shape[-1], b.shape[-1])


def sum_over_rows(array: Array) -> Array:
    """Return the sum over samples and steps, ``(features,)``."""
    return array.sum(axis=tuple(range(array.ndim - 1)))


def steps_before(hidden: StepHidden) -> StepHidden:
    """Return h[t−1] for every t, with zeros for t = 0."""
    return jnp.concatenate([jnp.zeros_like(hidden[:1]), hidden[:-1]])


def time_first(array: Array) -> Array:
    """Return ``(batch, ..., time, features)`` as ``(time, batch, ..., features)``, for a scan over time."""
    return jnp.moveaxis(array, -2, 0)


def time_second_to_last(array: Array) -> Array:
    """Return ``(time, batch, ..., features)`` as ``(batch, ..., time, features)``."""
    return jnp.moveaxis(array, 0, -2)


def along_features(vector: Array, x: Array) -> Array:
    """Return a vector of the features as an array that broadcasts with x."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def checked_recurrent(name: str, params: Any, x: Any, blocks: int) -> Array:
    """Return x as an array; raise where it doesn't fit the parameters, or the parameters each other."""
    kernel, hidden_kernel = params.input_kernel, params.hidden_kernel
    features = hidden_kernel.shape[0]
    if hidden_kernel.shape != (features, blocks * features) or kernel.shape[1:] != (blocks * features,):
        raise ValueError(
            f"{name}: expected an input_kernel of shape (in_features, {blocks * features}) and a hidden_kernel of "
            f"shape {(features, blocks * features)}, got {kernel.shape} and {hidden_kernel.shape}. "
            "Use what init of this very layer returned."
        )
    if hidden_kernel.dtype != kernel.dtype:
        raise TypeError(f"{name}: expected hidden_kernel as {kernel.dtype}, got {describe(hidden_kernel)}. Cast it.")
    check_vectors(name, kernel.dtype, blocks * features, bias=params.bias)
    return sequence_array(f"{name}({kernel.shape[0]}, {features})", x, kernel.shape[0], kernel.dtype)


def recurrent_init(
    key: PRNGKeyArray, *, name: str, in_features: int, features: int, blocks: int, kernel_init: KernelInit
) -> RecurrentParams:
    """Draw the kernels of every block: the input's with ``kernel_init``, orthogonal ones for h; biases are 0."""
    check_key(f"{name}: init(key)", key)
    input_key, hidden_key = jax.random.split(key)
    drawn = [kernel_init(block_key, (in_features, features)) for block_key in jax.random.split(input_key, blocks)]
    hidden_kernel = orthogonal_blocks(hidden_key, features, blocks).astype(drawn[0].dtype)
    return RecurrentParams(jnp.concatenate(drawn, axis=1), hidden_kernel, jnp.zeros(blocks * features, drawn[0].dtype))


def recurrent_settings(name: str, in_features: Any, features: Any, kernel_init: Any) -> dict[str, Any]:
    """Return the checked settings of a recurrent layer."""
    check_callable(f"{name}(kernel_init)", kernel_init, "Pass one of jax.nn.initializers: he_normal(), zeros.")
    return {
        "in_features": positive_integer(f"{name}(in_features)", in_features),
        "features": positive_integer(f"{name}(features)", features),
        "kernel_init": kernel_init,
    }


def recurrent_spec(name: str, settings: dict[str, Any], slope: Callable[..., Any], decoding: Decoding) -> LayerSpec:
    """Return the spec of a recurrent layer, whose h is in [−1, 1]."""
    return LayerSpec(
        name,
        settings=tuple(settings.items()),
        units="saturating",
        slope=slope,
        output_range=(-1.0, 1.0),
        decoding=decoding,
        is_recurrent=True,
    )


def start_hidden(params: Any, samples: int, length: int) -> Array:
    """Return h before the first step, zeros ``(samples, features)``: the cache of decoding."""
    return jnp.zeros((samples, params.hidden_kernel.shape[0]), params.hidden_kernel.dtype)


def _rnn_init(key, **settings):
    return recurrent_init(key, name="rnn", blocks=1, **settings), ()


def _rnn_layer_forward(params, state, x, *, train, key=None):
    y, residuals = rnn_forward(params, x)
    return y, state, residuals


def _rnn_slope(residuals, y):
    return 1 - y * y


def _rnn_advance(params, h, x):
    y, _, last = _run_rnn(params, x, h)
    return y, last


@memoised
def rnn(in_features: int, features: int, kernel_init: KernelInit = xavier) -> Layer:
    """A recurrent layer, h[t] = tanh(x[t] W + h[t−1] U + b), which starts from zero and returns all h.

    Its gradient through n steps has n factors U and n slopes below 1, so that it vanishes or explodes over long times;
    ``lstm`` and ``gru`` carry it further.

    Args:
        in_features: features of x.
        features: features of h.
        kernel_init: ``(key, shape) -> kernel`` of W; U starts orthogonal, b at zero.

    Returns:
        The layer, from ``(batch, time, in_features)`` to ``(batch, time, features)``. Its parameters are
        ``RecurrentParams(input_kernel, hidden_kernel, bias)``; it has no state.

    Raises:
        ValueError, TypeError: a feature count isn't a positive integer, or kernel_init isn't a function.

    Example:
        >>> layer = rnn(3, 4)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jnp.ones((2, 5, 3)), train=True)[0].shape
        (2, 5, 4)

    Source:
        Elman 1990.
    """
    settings = recurrent_settings("rnn", in_features, features, kernel_init)
    spec = recurrent_spec("rnn", settings, _rnn_slope, Decoding(start_hidden, _rnn_advance))
    return Layer(partial(_rnn_init, **settings), _rnn_layer_forward, rnn_backward, spec)


class LastStepResiduals(NamedTuple):
    """How many steps there are."""

    steps: Static


def last_step_forward(x: Hidden) -> tuple[Float[Array, "*batch features"], LastStepResiduals]:
    """Return the last step of each sequence, y = x[…, −1, :].

    Args:
        x: ``(batch, ..., time, features)``.

    Returns:
        y, ``(batch, ..., features)``, and the residuals.

    Raises:
        ValueError, TypeError: x isn't floating, or has no time axis.

    Example:
        >>> print(last_step_forward(jnp.array([[[1.0], [2.0]]]))[0])
        [[2.]]
    """
    x = sequence_array("last_step", x)
    return x[..., -1, :], LastStepResiduals(Static(x.shape[-2]))


def last_step_backward(residuals: LastStepResiduals, dy: Float[Array, "*batch features"]) -> Hidden:
    """dx = dy at the last step, and 0 at the others, on which y does not depend.

    Args:
        residuals: from ``last_step_forward``, the number of steps.
        dy: cotangent of y, ``(batch, ..., features)``.

    Returns:
        ``dx``, ``(batch, ..., time, features)``.

    Example:
        >>> _, residuals = last_step_forward(jnp.zeros((1, 3, 1)))
        >>> print(last_step_backward(residuals, jnp.array([[5.0]])).ravel())
        [0. 0. 5.]
    """
    before = ((0, 0),) * (dy.ndim - 1) + ((residuals.steps.value - 1, 0), (0, 0))
    return jnp.pad(dy[..., None, :], before)


def _last_step_layer_forward(params, state, x, *, train, key=None):
    y, residuals = last_step_forward(x)
    return y, state, residuals


def _last_step_layer_backward(residuals, dy):
    return (), last_step_backward(residuals, dy)


last_step = Layer(no_params, _last_step_layer_forward, _last_step_layer_backward, LayerSpec("last_step"))
