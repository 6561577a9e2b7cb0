"""Tied layers: the last of a chain uses the parameters of the first."""

from functools import partial

import jax
from jaxtyping import PyTree

from funcnn._checks import check_is_layer, check_key
from funcnn._memoise import memoised
from funcnn._tree_checks import check_same_tree
from funcnn.layers.annotation import TiedNotes, has_notes, values, with_values
from funcnn.layers.combinators import chain_backward, chain_forward, refuse_tree, split_key
from funcnn.types import Layer, LayerSpec, Structure, numbered


def _tied_init(layers, key):
    check_key("tied: init(key)", key)
    keys = split_key(key, len(layers))
    parts = [layer.init(part_key) for layer, part_key in zip(layers[:-1], keys[:-1], strict=True)]
    last_params, last_state = jax.eval_shape(layers[-1].init, keys[-1])
    shapes = jax.eval_shape(lambda: parts[0][0])
    check_same_tree("tied: the last layer's parameters", last_params, shapes, "the first layer's", dtypes=False)
    if jax.tree.leaves(last_state):  # The table that it would draw in addition may be large.
        last_state = layers[-1].init(keys[-1])[1]
    return tuple(params for params, _ in parts), (*(state for _, state in parts), last_state)


def _tied_forward(layers, params, state, x, *, train, key=None):
    for name, tree, count in (("params", params, len(layers) - 1), ("state", state, len(layers))):
        if not isinstance(tree, tuple) or len(tree) != count:
            refuse_tree("tied", f"{name} as a tuple of {count} entries", tree)
    return chain_forward(layers, (*params, params[0]), state, x, train=train, key=key)


def _tied_backward(layers, residuals, dy):
    (first, *between, last), dx = chain_backward(layers, residuals, dy)
    return (_sum_of_uses(first, last), *between), dx


def _sum_of_uses(first: PyTree, last: PyTree) -> PyTree:
    """Return the gradient of the shared parameters, the sum over their two uses; notes of both are kept beside it."""
    total = jax.tree.map(lambda a, b: a + b, values(first), values(last))
    return TiedNotes(with_values(first, total), with_values(last, total)) if has_notes(first) else total


@memoised
def tied(*layers: Layer) -> Layer:
    """Layers one after another, the last with the parameters of the first, y = fₙ(θ₁, … f₂(θ₂, f₁(θ₁, x))).

    The parameters are used twice, so their gradients add up::

        ∂L/∂θ₁ = dθ₁ + dθₙ

    with dθ₁ from the backward pass of the first layer and dθₙ from that of the last.

    A language model whose output is tied to its embedding is ``tied(embedding(v, f), …, unembedding(v, f))``.

    Args:
        layers: at least two. The parameters of the last have the structure and shapes of the first's.

    Returns:
        The layer. Parameters and their gradients are tuples with an entry for each layer but the last, states tuples
        with an entry for each layer. A key is split, one for each layer.

    Raises:
        ValueError: there are fewer than two layers; in init, the parameters of the first and of the last differ in
            structure or shapes; in forward, params or state have another number of entries.
        TypeError: an argument isn't a layer.

    Example:
        >>> import jax.numpy as jnp
        >>> from funcnn.layers.embedding import embedding, unembedding
        >>> model = tied(embedding(5, 3), unembedding(5, 3))
        >>> params, state = model.init(jax.random.key(0))
        >>> y, _, residuals = model.forward(params, state, jnp.array([[0, 4]]), train=True)
        >>> len(params), y.shape, model.backward(residuals, y)[0][0].table.shape
        (1, (1, 2, 5), (5, 3))

    Source:
        Press and Wolf, "Using the output embedding to improve language models", 2017; Inan, Khosravi and Socher, "Tying
        word vectors and word classifiers", 2017.
    """
    if len(layers) < 2:
        raise ValueError(
            f"tied: expected at least two layers, the first and the last, got {len(layers)}. "
            "An embedding and its output are tied(embedding(v, f), unembedding(v, f))."
        )
    for position, layer in enumerate(layers):
        check_is_layer(f"tied(layers[{position}])", layer)
    return Layer(
        partial(_tied_init, layers),
        partial(_tied_forward, layers),
        partial(_tied_backward, layers),
        LayerSpec("tied", structure=Structure(tied, layers, numbered("layers", len(layers)), ties_last=True)),
    )
