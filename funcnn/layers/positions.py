"""Positions in a sequence: learned and sinusoidal vectors that are added, and rotations by the position.

Positions are the last axis but one: ``(batch, ..., time, features)``.
"""

from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from funcnn._checks import check_callable, check_key, positive_integer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers._sequences import check_length, sequence_array
from funcnn.layers.activation_layer import no_params
from funcnn.layers.initializers import normal
from funcnn.types import Decoding, KernelInit, Layer, LayerSpec

Sequences = Float[Array, "*batch time features"]

WAVELENGTHS = 10000.0
"""The base of the wavelengths, from 2π to 2π · 10000 positions, of Vaswani et al. 2017 and Su et al. 2021."""


TABLE_INIT = normal(0.02)


class PositionParams(NamedTuple):
    """``table``: ``(length, features)``, a row for each position. Also the type of its gradient."""

    table: Float[Array, "length features"]


class PositionResiduals(NamedTuple):
    """How many positions the table has."""

    length: Static


class RotaryResiduals(NamedTuple):
    """The cosines and sines of the angles of each position and pair of features."""

    cosine: Float[Array, "time pairs"]
    sine: Float[Array, "time pairs"]


def learned_positions_forward(params: PositionParams, x: Sequences) -> tuple[Sequences, PositionResiduals]:
    """Add the row of each position, y[n,t] = x[n,t] + P[t].

    Args:
        params: the table P, ``(length, features)``.
        x: ``(batch, ..., time, features)`` with at most ``length`` positions, in the table's dtype.

    Returns:
        y, of x's shape, and the residuals.

    Raises:
        ValueError, TypeError: x doesn't fit the table, or has more positions than it.

    Example:
        >>> params = PositionParams(jnp.array([[1.0], [2.0], [3.0]]))
        >>> print(learned_positions_forward(params, jnp.zeros((1, 2, 1)))[0].ravel())
        [1. 2.]

    Source:
        Gehring, Auli, Grangier, Yarats and Dauphin, "Convolutional sequence to sequence learning", 2017, section 3.1.
    """
    length, features = params.table.shape
    name = f"learned_positions({length}, {features})"
    x = sequence_array(name, x, features, params.table.dtype)
    check_length(name, x.shape[-2], length)
    return x + _along_batch(params.table[: x.shape[-2]], x), PositionResiduals(Static(length))


def learned_positions_backward(residuals: PositionResiduals, dy: Sequences) -> tuple[PositionParams, Sequences]:
    """Gradients of y[n,t] = x[n,t] + P[t]: dx = dy, and every sample n adds the same row, so its gradients add up::

        ∂L/∂P[t] = Σₙ dy[n,t]

    Args:
        residuals: from ``learned_positions_forward``.
        dy: cotangent of y, ``(batch, ..., time, features)``.

    Returns:
        The gradient of the table, 0 at positions that the sequences don't reach, and ``dx``.

    Example:
        >>> params = PositionParams(jnp.array([[1.0], [2.0], [3.0]]))
        >>> _, residuals = learned_positions_forward(params, jnp.zeros((5, 2, 1)))
        >>> print(learned_positions_backward(residuals, jnp.ones((5, 2, 1)))[0].table.ravel())
        [5. 5. 0.]

    Source:
        Gehring et al. 2017.
    """
    summed = dy.sum(axis=tuple(range(dy.ndim - 2)))
    return PositionParams(jnp.pad(summed, ((0, residuals.length.value - dy.shape[-2]), (0, 0)))), dy


def sinusoidal_positions_forward(x: Sequences) -> tuple[Sequences, tuple[()]]:
    """Add a sine and a cosine of the position t for each pair of features, of wavelengths from 2π to 2π · 10000::

        y[n,t,2i] = x[n,t,2i] + sin(t / 10000^(2i/features))
        y[n,t,2i+1] = x[n,t,2i+1] + cos(t / 10000^(2i/features))

    Nothing is learned, so backward is dx = dy.

    Args:
        x: ``(batch, ..., time, features)``.

    Returns:
        y, of x's shape, and no residuals.

    Raises:
        ValueError, TypeError: x isn't floating, or has no time axis.

    Example:
        >>> y, _ = sinusoidal_positions_forward(jnp.zeros((1, 2, 2)))
        >>> bool(jnp.allclose(y[0], jnp.array([[0.0, 1.0], [jnp.sin(1.0), jnp.cos(1.0)]])))
        True

    Source:
        Vaswani et al., "Attention is all you need", 2017, section 3.5.
    """
    x = sequence_array("sinusoidal_positions", x)
    return _with_waves(x, jnp.zeros((), jnp.int32)), ()


def sinusoidal_positions_backward(residuals: tuple[()], dy: Sequences) -> Sequences:
    """dx = dy, because what is added does not depend on x.

    Args:
        residuals: from ``sinusoidal_positions_forward``, none.
        dy: cotangent of y, ``(batch, ..., time, features)``.

    Returns:
        ``dx``, of dy's shape.

    Example:
        >>> print(sinusoidal_positions_backward((), jnp.ones((1, 1, 2))))
        [[[1. 1.]]]

    Source:
        Vaswani et al. 2017, section 3.5.
    """
    return dy


def rotary_forward(x: Sequences, *, base: float = WAVELENGTHS, first: Any = 0) -> tuple[Sequences, RotaryResiduals]:
    """Rotate each pair (a, b) of the features i and i + features/2 by an angle that is proportional to the position t::

        a′ = a cos θ − b sin θ,    b′ = a sin θ + b cos θ,    θ = t / base^(2i/features)

    The product of a rotated query and a rotated key depends on the distance of their positions alone, because
    ⟨R(s) q, R(t) k⟩ = ⟨q, R(t − s) k⟩. The pairs are those of GPT-NeoX and Llama; Su et al. pair neighbours, which is
    another order of the features.

    Args:
        x: queries or keys, ``(batch, ..., time, features)``, with an even number of features.
        base: the base of the wavelengths.
        first: the position of the first entry.

    Returns:
        The rotated x, and the residuals.

    Raises:
        ValueError, TypeError: x isn't floating, has no time axis, or an odd number of features.

    Example:
        >>> y, _ = rotary_forward(jnp.array([[[1.0, 0.0], [1.0, 0.0]]]))
        >>> bool(jnp.allclose(y[0], jnp.array([[1.0, 0.0], [jnp.cos(1.0), jnp.sin(1.0)]])))
        True

    Source:
        Su, Lu, Pan, Murtadha, Wen and Liu, "RoFormer: enhanced transformer with rotary position embedding", 2021,
        equation 34.
    """
    x = sequence_array("rotary", x)
    if x.shape[-1] % 2:
        raise ValueError(
            f"rotary: expected an even number of features, got {x.shape[-1]}. "
            "Give one more: features are rotated in pairs."
        )
    angles = _angles(x, base, first)
    residuals = RotaryResiduals(jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype))
    return _rotated(x, *residuals), residuals


def rotary_backward(residuals: RotaryResiduals, dy: Sequences) -> Sequences:
    """Rotate dy by the same angles in the other direction: dx = Rᵀ dy, and the transpose of a rotation is its inverse::

        da = da′ cos θ + db′ sin θ,    db = −da′ sin θ + db′ cos θ

    Args:
        residuals: from ``rotary_forward``.
        dy: cotangent of the rotated x.

    Returns:
        dx, of dy's shape.

    Example:
        >>> x = jnp.array([[[1.0, 2.0], [3.0, 4.0]]])
        >>> y, residuals = rotary_forward(x)
        >>> print(rotary_backward(residuals, y).round(5))
        [[[1. 2.]
          [3. 4.]]]

    Source:
        Su et al. 2021.
    """
    return _rotated(dy, residuals.cosine, -residuals.sine)


def _rotated(x, cosine, sine):
    a, b = jnp.split(x, 2, axis=-1)
    cosine, sine = _along_batch(cosine, x), _along_batch(sine, x)
    return jnp.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1)


def _along_batch(table, x):
    """Return a table ``(time, features)`` as an array that broadcasts with x."""
    return table.reshape((1,) * (x.ndim - 2) + table.shape)


def _angles(x, base, first):
    """Return t / base^(2i/features), ``(time, pairs)``, in float32 or wider: bfloat16 has no integers above 256."""
    wide = jnp.dtype(jnp.float32) if x.dtype.itemsize < 4 else x.dtype
    time, features = x.shape[-2:]
    positions = jnp.asarray(first, wide) + jnp.arange(time, dtype=wide)
    frequencies = jnp.asarray(base, wide) ** (jnp.arange(0, features, 2, dtype=wide) / -features)
    return positions[:, None] * frequencies[None, :]


def _with_waves(x, first):
    angles = _angles(x, WAVELENGTHS, first)
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    waves = waves.reshape(x.shape[-2], 2 * angles.shape[-1])[:, : x.shape[-1]]
    return x + _along_batch(waves.astype(x.dtype), x)


def _start_at_the_first(name, length):
    """Return a cache of the next position, for sequences of at most ``length`` positions."""

    def start(params, samples, positions):
        if length is not None:
            check_length(name, positions, length)
        return jnp.zeros((), jnp.int32)

    return start


def _learned_positions_init(key, *, length, features, table_init):
    check_key("learned_positions: init(key)", key)
    return PositionParams(table_init(key, (length, features))), ()


def _learned_positions_layer_forward(params, state, x, *, train, key=None):
    y, residuals = learned_positions_forward(params, x)
    return y, state, residuals


def _learned_positions_advance(params, first, x):
    rows = lax.dynamic_slice_in_dim(params.table, first, x.shape[-2])
    return x + _along_batch(rows, x), first + x.shape[-2]


@memoised
def learned_positions(length: int, features: int, table_init: KernelInit = TABLE_INIT) -> Layer:
    """Learned positions: the row of a table is added at each position, y[n,t] = x[n,t] + P[t].

    Args:
        length: the largest number of positions.
        features: features of x.
        table_init: ``(key, shape) -> table``; by default GPT-2's, normal numbers of standard deviation 0.02.

    Returns:
        The layer, from ``(batch, time, features)`` to the same shape. Its parameters are ``PositionParams(table)``.

    Raises:
        ValueError, TypeError: a size isn't a positive integer, or table_init isn't a function.

    Example:
        >>> import jax
        >>> layer = learned_positions(16, 4)
        >>> params, state = layer.init(jax.random.key(0))
        >>> layer.forward(params, state, jnp.ones((2, 8, 4)), train=True)[0].shape
        (2, 8, 4)

    Source:
        Gehring et al. 2017.
    """
    check_callable("learned_positions(table_init)", table_init, "Pass one of jax.nn.initializers: normal(0.02).")
    settings = {**_sizes("learned_positions", length, features), "table_init": table_init}
    return Layer(
        partial(_learned_positions_init, **settings),
        _learned_positions_layer_forward,
        learned_positions_backward,
        LayerSpec(
            "learned_positions",
            settings=tuple(settings.items()),
            decoding=Decoding(
                _start_at_the_first(f"learned_positions({length}, {features})", length), _learned_positions_advance
            ),
        ),
    )


def _sinusoidal_positions_layer_forward(params, state, x, *, train, key=None, length, features):
    name = f"sinusoidal_positions({length}, {features})"
    x = sequence_array(name, x)
    x = sequence_array(name, x, features, x.dtype)
    check_length(name, x.shape[-2], length)
    y, residuals = sinusoidal_positions_forward(x)
    return y, state, residuals


def _sinusoidal_positions_layer_backward(residuals, dy):
    return (), sinusoidal_positions_backward(residuals, dy)


@memoised
def sinusoidal_positions(length: int, features: int) -> Layer:
    """Sinusoidal positions: sines and cosines of the position are added, of wavelengths from 2π to 2π · 10000.

    Args:
        length: the largest number of positions.
        features: features of x.

    Returns:
        The layer, from ``(batch, time, features)`` to the same shape, without parameters or state.

    Raises:
        ValueError, TypeError: a size isn't a positive integer.

    Example:
        >>> layer = sinusoidal_positions(16, 4)
        >>> layer.forward((), (), jnp.ones((2, 8, 4)), train=True)[0].shape
        (2, 8, 4)

    Source:
        Vaswani et al. 2017, section 3.5.
    """
    settings = _sizes("sinusoidal_positions", length, features)
    start = _start_at_the_first(f"sinusoidal_positions({length}, {features})", settings["length"])
    return Layer(
        no_params,
        partial(_sinusoidal_positions_layer_forward, **settings),
        _sinusoidal_positions_layer_backward,
        LayerSpec(
            "sinusoidal_positions",
            settings=tuple(settings.items()),
            decoding=Decoding(start, lambda params, first, x: (_with_waves(x, first), first + x.shape[-2])),
        ),
    )


def _sizes(name, length, features) -> dict[str, Any]:
    return {
        "length": positive_integer(f"{name}(length)", length),
        "features": positive_integer(f"{name}(features)", features),
    }


def _rotary_layer_forward(params, state, x, *, train, key=None):
    y, residuals = rotary_forward(x)
    return y, state, residuals


def _rotary_layer_backward(residuals, dy):
    return (), rotary_backward(residuals, dy)


rotary = Layer(
    no_params,
    _rotary_layer_forward,
    _rotary_layer_backward,
    LayerSpec(
        "rotary",
        decoding=Decoding(
            _start_at_the_first("rotary", None),
            lambda params, first, x: (rotary_forward(x, first=first)[0], first + x.shape[-2]),
        ),
    ),
)
