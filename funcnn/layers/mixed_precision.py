"""Mixed precision: a layer computes in a narrow dtype, its parameters and all that goes in and out stay wide."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from funcnn._checks import check_is_layer, floating_array
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.types import Layer, Residuals


class MixedResiduals(NamedTuple):
    """The layer's own residuals, and the wide dtypes of its parameters and of x."""

    residuals: Residuals
    params: Static
    x: Static


def _cast(tree: PyTree, dtype) -> PyTree:
    """Floating leaves in ``dtype``; counts and keys as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def _cast_each(tree: PyTree, dtypes) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [leaf.astype(dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)])


def _dtypes(tree: PyTree) -> tuple:
    return tuple(leaf.dtype for leaf in jax.tree.leaves(tree))


def _mixed_precision_init(layer, key):
    return layer.init(key)


def _mixed_precision_forward(layer, compute_dtype, params, state, x, *, train, key=None):
    x = floating_array("mixed_precision", x)
    narrow = (_cast(tree, compute_dtype) for tree in (params, state, x))
    y, new_state, residuals = layer.forward(*narrow, train=train, key=key)
    kept = MixedResiduals(residuals, Static(_dtypes(params)), Static(x.dtype))
    return y.astype(x.dtype), _cast_each(new_state, _dtypes(state)), kept


def _mixed_precision_backward(layer, compute_dtype, kept, dy):
    dparams, dx = layer.backward(kept.residuals, dy.astype(compute_dtype))
    return _cast_each(dparams, kept.params.value), dx.astype(kept.x.value)


@memoised
def mixed_precision(layer: Layer, compute_dtype: DTypeLike = jnp.bfloat16) -> Layer:
    """A layer that computes forward and backward in ``compute_dtype``; parameters, output and gradients stay wide.

    With ⌊·⌋ for rounding to the narrow dtype::

        forward    y  = wide(f(⌊θ⌋, ⌊x⌋))
        backward   dθ, dx = wide(f.backward(r, ⌊dy⌋))

    The optimizer sees parameters, gradients and moments in float32: an update much smaller than its parameter, which
    bfloat16 would round away, adds up there. bfloat16 has float32's range, so losses need no scaling; float16 hasn't.
    Keep losses, softmax and normalization outside, whose sums need the digits: wrap the linear layers, as
    ``mlp(…, compute_dtype=jnp.bfloat16)`` does.

    Hand-written and autodiff gradients of it agree to the narrow dtype's rounding only: check the layer itself.

    Args:
        layer: any layer.
        compute_dtype: a floating dtype, ``jnp.bfloat16`` or ``jnp.float16``.

    Returns:
        The layer, with the parameters and state of ``layer``, in the dtypes they have.

    Raises:
        TypeError: layer isn't a layer, or the dtype isn't floating.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from funcnn.layers.linear import linear
        >>> layer = mixed_precision(linear(3, 2))
        >>> params, state = layer.init(jax.random.key(0))
        >>> y, _, kept = layer.forward(params, state, jnp.ones((5, 3), jnp.float32), train=True)
        >>> print(y.dtype, kept.residuals.kernel.dtype)
        float32 bfloat16

    Source:
        Micikevicius et al., "Mixed precision training", 2018, section 3.1; Kalamkar et al., "A study of bfloat16 for
        deep learning training", 2019.
    """
    check_is_layer("mixed_precision(layer)", layer)
    dtype = checked_compute_dtype("mixed_precision(compute_dtype)", compute_dtype)
    return Layer(
        partial(_mixed_precision_init, layer),
        partial(_mixed_precision_forward, layer, dtype),
        partial(_mixed_precision_backward, layer, dtype),
    )


def checked_compute_dtype(name: str, dtype) -> jnp.dtype:
    """The dtype; a ``TypeError`` where it isn't a floating one."""
    try:
        checked = jnp.dtype(dtype)
    except TypeError:
        checked = None
    if checked is None or not jnp.issubdtype(checked, jnp.floating):
        raise TypeError(f"{name}: expected a floating dtype, got {dtype!r}. Pass jnp.bfloat16 or jnp.float16.")
    if jax.dtypes.canonicalize_dtype(checked) != checked:
        raise TypeError(
            f"{name}: expected a dtype that JAX is set to, got {checked}. Pass jnp.float32, or enable jax_enable_x64."
        )
    return checked
