"""Combinators: layers one after another, a layer with a shortcut, and many equal layers.

Each runs its parts forward in order and backward in the opposite order, by the chain rule.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PRNGKeyArray

from funcnn._checks import check_is_layer, check_key, describe, errors_at, positive_integer
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn._tree_checks import describe_tree
from funcnn.layers.activations import identity
from funcnn.types import Layer, LayerSpec, Params, Residuals, State, Structure, numbered


class SkipParts(NamedTuple):
    """Parameters, states, residuals or gradients of the inner layer and of the shortcut."""

    inner: Params | State | Residuals
    shortcut: Params | State | Residuals


class RepeatResiduals(NamedTuple):
    """The inputs of the repeated layers, their other residuals, and the place of each in a layer's residuals.

    A kernel among the residuals of a scanned layer would be stacked once more, although the parameters are there
    anyway; so would an output, which is the input of the next layer.

    Fields:
        given: parameters, states and keys, the layers first.
        kept: the other residuals, the layers first; where the outputs are left out, the inputs come first.
        y: the last layer's output, where the other outputs are left out.
        mixed: the structure of a layer's residuals, and where each of them is.
    """

    given: tuple[Params, State, PRNGKeyArray | None]
    kept: tuple[Array, ...]
    y: Array | None
    mixed: Static

    def of_one(self, given, kept, y) -> Residuals:
        """Return a layer's own residuals, from its inputs, its other residuals and its output."""
        structure, places = self.mixed.value
        sources = (jax.tree.leaves(given), kept, (y,))
        return jax.tree.unflatten(structure, [sources[source][number] for source, number in places])


_GIVEN, _KEPT, _OUTPUT = 0, 1, (2, 0)


def split_key(key: PRNGKeyArray | None, count: int) -> tuple[PRNGKeyArray | None, ...]:
    """Return a key for each of ``count`` parts, or as many ``None``."""
    return (None,) * count if key is None else tuple(jax.random.split(key, count))


def refuse_tree(name, expected, tree):
    """Raise for parameters or a state of another layer."""
    raise ValueError(
        f"{name}: expected {expected}, got {type(tree).__name__} of {describe_tree(tree)}. "
        "Use what init of this very model returned."
    )


def _serial_init(layers, key):
    check_key("serial: init(key)", key)
    # Not split_key: XLA compiles the program that takes a long array of keys apart for most of a second.
    keys = jax.random.split(key, len(layers))
    parts = [layer.init(lax.dynamic_index_in_dim(keys, at, keepdims=False)) for at, layer in enumerate(layers)]
    return tuple(params for params, _ in parts), tuple(state for _, state in parts)


def _serial_forward(layers, params, state, x, *, train, key=None):
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, tuple) or len(tree) != len(layers):
            refuse_tree("serial", f"{name} as a tuple with an entry for each of {len(layers)} layers", tree)
    return chain_forward(layers, params, state, x, train=train, key=key)


def chain_forward(layers, params, state, x, *, train, key=None):
    """Compute layers one after another, and the states and residuals of each."""
    states, residuals = [], []
    given = zip(layers, params, state, split_key(key, len(layers)), strict=True)
    for number, (layer, layer_params, layer_state, layer_key) in enumerate(given):
        with errors_at(f"layers[{number}]"):
            x, new_state, kept = layer.forward(layer_params, layer_state, x, train=train, key=layer_key)
        states.append(new_state)
        residuals.append(kept)
    return x, tuple(states), tuple(residuals)


def chain_backward(layers, residuals, dy):
    """Gradients of layers one after another, by the chain rule: each layer's dx is the dy of the layer before it."""
    gradients = []
    for layer, kept in zip(reversed(layers), reversed(residuals), strict=True):
        dparams, dy = layer.backward(kept, dy)
        gradients.append(dparams)
    return tuple(reversed(gradients)), dy


@memoised
def serial(*layers: Layer) -> Layer:
    """Layers one after another, y = f₃(f₂(f₁(x))) for three.

    Backward applies the chain rule from the last layer to the first: dy of a layer is dx of the next one.

    Args:
        layers: at least one layer.

    Returns:
        The layer. Parameters, states and their gradients are tuples with an entry for each layer. A key is split, one
        for each layer.

    Raises:
        ValueError: there is no layer; in forward, params or state have another number of entries.
        TypeError: an argument isn't a layer.

    Example:
        >>> import jax
        >>> from funcnn.layers.activations import relu
        >>> from funcnn.layers.linear import linear
        >>> model = serial(linear(3, 4), relu, linear(4, 1))
        >>> params, state = model.init(jax.random.key(0))
        >>> y, _, _ = model.forward(params, state, jax.numpy.ones((2, 3)), train=False)
        >>> y.shape
        (2, 1)

    Source:
        Rumelhart, Hinton and Williams, "Learning representations by back-propagating errors", 1986, for backward.
    """
    if not layers:
        raise ValueError("serial: expected at least one layer, got none. For no operation use identity.")
    for position, layer in enumerate(layers):
        check_is_layer(f"serial(layers[{position}])", layer)
    return Layer(
        partial(_serial_init, layers),
        partial(_serial_forward, layers),
        partial(chain_backward, layers),
        LayerSpec("serial", structure=Structure(serial, layers, numbered("layers", len(layers)))),
    )


def _skip_init(inner, shortcut, key):
    if key is not None:
        check_key("skip: init(key)", key)
    inner_key, shortcut_key = split_key(key, 2)
    inner_params, inner_state = inner.init(inner_key)
    shortcut_params, shortcut_state = shortcut.init(shortcut_key)
    return SkipParts(inner_params, shortcut_params), SkipParts(inner_state, shortcut_state)


def _skip_forward(inner, shortcut, params, state, x, *, train, key=None):
    for name, tree in (("params", params), ("state", state)):
        if not isinstance(tree, SkipParts):
            refuse_tree("skip", f"{name} as SkipParts(inner, shortcut)", tree)
    inner_key, shortcut_key = split_key(key, 2)
    with errors_at("inner"):
        y, inner_state, inner_residuals = inner.forward(params.inner, state.inner, x, train=train, key=inner_key)
    with errors_at("shortcut"):
        y_shortcut, shortcut_state, shortcut_residuals = shortcut.forward(
            params.shortcut, state.shortcut, x, train=train, key=shortcut_key
        )
    if (y.shape, y.dtype) != (y_shortcut.shape, y_shortcut.dtype):
        raise ValueError(
            f"skip: expected the shortcut's output like the inner layer's, {describe(y)}, got {describe(y_shortcut)}. "
            "Where the widths differ, project: skip(inner, shortcut=linear(in_features, out_features))."
        )
    return y + y_shortcut, SkipParts(inner_state, shortcut_state), SkipParts(inner_residuals, shortcut_residuals)


def _skip_backward(inner, shortcut, residuals, dy):
    inner_gradients, dx = inner.backward(residuals.inner, dy)
    shortcut_gradients, dx_shortcut = shortcut.backward(residuals.shortcut, dy)
    # Tokens have no gradient.
    return SkipParts(inner_gradients, shortcut_gradients), None if dx is None else dx + dx_shortcut


@memoised
def skip(inner: Layer, shortcut: Layer = identity) -> Layer:
    """A skip (residual) connection, y = inner(x) + shortcut(x).

    x is used twice, so its gradients add up: dx = inner's dx + shortcut's dx. With the identity as shortcut, dx
    contains dy itself, however deep the inner layer is.

    Args:
        inner: the layer that is skipped.
        shortcut: the layer beside it; ``linear(in_features, out_features)`` projects where the widths differ.

    Returns:
        The layer. Parameters, states and gradients are ``SkipParts(inner, shortcut)``.

    Raises:
        ValueError: in forward, the two outputs have different shapes (they would broadcast) or dtypes.
        TypeError: an argument isn't a layer.

    Example:
        >>> import jax.numpy as jnp
        >>> doubled = skip(identity)
        >>> params, state = doubled.init(None)
        >>> print(doubled.forward(params, state, jnp.array([[3.0]]), train=False)[0])
        [[6.]]

    Source:
        He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, equations 1 and 2.
    """
    check_is_layer("skip(inner)", inner)
    check_is_layer("skip(shortcut)", shortcut)
    return Layer(
        partial(_skip_init, inner, shortcut),
        partial(_skip_forward, inner, shortcut),
        partial(_skip_backward, inner, shortcut),
        LayerSpec(
            "skip",
            structure=Structure(skip, (inner, shortcut), SkipParts._fields, container=SkipParts._make, adds=True),
        ),
    )


def _repeat_init(layer, n, key):
    check_key("repeat: init(key)", key)
    return jax.vmap(layer.init)(jax.random.split(key, n))


def _repeat_forward(layer, n, params, state, x, *, train, key=None):
    def one_layer(x, part):
        layer_params, layer_state, layer_key = part
        with errors_at("repeat[0]"):
            y, new_state, residuals = layer.forward(layer_params, layer_state, x, train=train, key=layer_key)
        kept, mixed = _separate(residuals, part, x, y)
        if (y.shape, y.dtype) != (x.shape, x.dtype):
            raise ValueError(
                f"repeat: expected a layer that keeps the shape and dtype of x, {x.dtype} {x.shape}, "
                f"got {y.dtype} {y.shape}. Use serial for layers of different widths."
            )
        return y, (new_state, kept, mixed)

    for leaf in jax.tree.leaves((params, state)):
        if jnp.shape(leaf)[:1] != (n,):
            raise ValueError(
                f"repeat(n={n}): expected parameters and a state whose first axis is {n}, got shape {jnp.shape(leaf)}. "
                "Use what init of this very model returned."
            )
    given = (params, state, None if key is None else jax.random.split(key, n))
    y, (new_state, kept, mixed) = lax.scan(one_layer, x, given, length=n)
    leaves_out_outputs = _OUTPUT in mixed.value[1]
    return y, new_state, RepeatResiduals(given, kept, y if leaves_out_outputs else None, mixed)


def _repeat_backward(layer, n, residuals, dy):
    def one_layer(after, part):
        dy, y = after
        given, kept = part
        dparams, dx = layer.backward(residuals.of_one(given, kept, y), dy)
        return (dx, None if y is None else kept[0]), dparams

    given_and_kept = (residuals.given, residuals.kept)
    (dx, _), dparams = lax.scan(one_layer, (dy, residuals.y), given_and_kept, length=n, reverse=True)
    return dparams, dx


def _separate(residuals, given, x, y):
    """Return the residuals that a scanned layer has to keep, and the places of all of them."""
    leaves, structure = jax.tree.flatten(residuals)
    places: dict[int, tuple[int, int]] = {}
    kept: list[Array] = []
    among = {id(leaf) for leaf in leaves}
    if x is not y and {id(x), id(y)} <= among:
        kept.append(x)
        places |= {id(x): (_KEPT, 0), id(y): _OUTPUT}
    places |= {id(leaf): (_GIVEN, number) for number, leaf in enumerate(jax.tree.leaves(given))}
    for leaf in leaves:
        if id(leaf) not in places:
            places[id(leaf)] = (_KEPT, len(kept))
            kept.append(leaf)
    return tuple(kept), Static((structure, tuple(places[id(leaf)] for leaf in leaves)))


@memoised
def repeat(layer: Layer, n: int) -> Layer:
    """n equal layers one after another, run by ``lax.scan``, so that compile time does not grow with n.

    Each layer has its own parameters and state. They are stacked, with the layers as the first axis. Backward scans
    from the last layer to the first.

    Args:
        layer: a layer whose output has the shape and dtype of its input.
        n: how many times the layer is applied.

    Returns:
        The layer. Every array of its parameters, state and gradients has n as its first axis.

    Raises:
        ValueError: n isn't positive; in forward, the layer changes the shape or dtype of x, or the parameters are
            of another n.
        TypeError: layer isn't a layer, or n isn't an integer.

    Example:
        >>> import jax
        >>> from funcnn.layers.linear import linear
        >>> params, state = repeat(linear(8, 8), 50).init(jax.random.key(0))
        >>> params.kernel.shape
        (50, 8, 8)

    Source:
        Rumelhart, Hinton and Williams 1986 for backward; JAX's documentation of ``jax.lax.scan`` for the loop.
    """
    check_is_layer("repeat(layer)", layer)
    n = positive_integer("repeat(n)", n)
    return Layer(
        partial(_repeat_init, layer, n),
        partial(_repeat_forward, layer, n),
        partial(_repeat_backward, layer, n),
        LayerSpec(
            "repeat",
            settings=(("n", n),),
            structure=Structure(partial(repeat, n=n), (layer,), numbered("repeat", n), trees="stacked"),
        ),
    )
