"""Mixed precision: a layer computes in a narrow dtype; its parameters, input, output and gradients stay wide."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from funcnn._checks import check_is_layer, errors_at, numeric_array
from funcnn._memoise import memoised
from funcnn._static import Static
from funcnn.layers.annotation import values, with_values
from funcnn.types import Layer, LayerSpec, Residuals, Structure


def cast_floating(tree: PyTree, dtype: Any) -> PyTree:
    """Return the tree with its floating leaves in ``dtype``; counts and keys stay as they are."""
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)


def wide_dtype(params: PyTree, x: Any) -> Any:
    """Return the dtype outside of a layer in mixed precision: x's, and for tokens that of the parameters."""
    floating = [leaf.dtype for leaf in (x, *jax.tree.leaves(params)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return floating[0] if floating else jnp.result_type(float)


class MixedResiduals(NamedTuple):
    """The layer's own residuals, and the wide dtypes of its parameters and of x."""

    residuals: Residuals
    params: Static
    x: Static


def _cast_each(tree: PyTree, dtypes) -> PyTree:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, [leaf.astype(dtype) for leaf, dtype in zip(leaves, dtypes, strict=True)])


def _dtypes(tree: PyTree) -> tuple:
    return tuple(leaf.dtype for leaf in jax.tree.leaves(tree))


def _mixed_precision_init(layer, key):
    return layer.init(key)


def _mixed_precision_forward(layer, compute_dtype, params, state, x, *, train, key=None):
    x = numeric_array("mixed_precision", x)
    narrow = (cast_floating(tree, compute_dtype) for tree in (params, state, x))
    with errors_at("mixed_precision"):
        y, new_state, residuals = layer.forward(*narrow, train=train, key=key)
    kept = MixedResiduals(residuals, Static(_dtypes(params)), Static(x.dtype))
    return y.astype(wide_dtype(params, x)), _cast_each(new_state, _dtypes(state)), kept


def _mixed_precision_backward(layer, compute_dtype, kept, dy):
    dparams, dx = layer.backward(kept.residuals, dy.astype(compute_dtype))
    wide = _cast_each(values(dparams), kept.params.value)
    return with_values(dparams, wide), None if dx is None else dx.astype(kept.x.value)


def mixed_precision(layer: Layer, compute_dtype: DTypeLike = jnp.bfloat16) -> Layer:
    """A layer that computes forward and backward in ``compute_dtype``; parameters, output and gradients stay wide.

    With ⌊·⌋ for rounding to the narrow dtype and r for the residuals::

        forward    y  = wide(f(⌊θ⌋, ⌊x⌋))
        backward   dθ, dx = wide(f.backward(r, ⌊dy⌋))

    Parameters, gradients and the optimizer's moments stay in float32, where small updates add up that bfloat16 would
    round away. bfloat16 has float32's range, so losses need no scaling; float16 does not. Keep losses, softmax and
    normalization outside, because their sums need the digits: wrap the linear layers, as
    ``mlp(…, compute_dtype=jnp.bfloat16)`` does.

    Hand-written and autodiff gradients agree only to the narrow dtype's rounding. To check a backward pass, check the
    layer without the wrapper.

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
    return _mixed_precision(layer, checked_compute_dtype("mixed_precision(compute_dtype)", compute_dtype))


@memoised
def _mixed_precision(layer: Layer, dtype: Any) -> Layer:
    # Memoised by the checked dtype: jnp.bfloat16 and "bfloat16" give the same layer.
    return Layer(
        partial(_mixed_precision_init, layer),
        partial(_mixed_precision_forward, layer, dtype),
        partial(_mixed_precision_backward, layer, dtype),
        LayerSpec(
            "mixed_precision",
            settings=(("compute_dtype", dtype),),
            structure=Structure(
                partial(mixed_precision, compute_dtype=dtype),
                (layer,),
                ("mixed_precision",),
                trees="same",
                compute_dtype=dtype,
            ),
        ),
    )


def checked_compute_dtype(name: str, dtype) -> jnp.dtype:
    """Return the dtype, or raise a ``TypeError`` where it is not a floating one."""
    try:
        checked = None if dtype is None else jnp.dtype(dtype)
    except TypeError:
        checked = None
    if checked is None or not jnp.issubdtype(checked, jnp.floating):
        raise TypeError(f"{name}: expected a floating dtype, got {dtype!r}. Pass jnp.bfloat16 or jnp.float16.")
    if jax.dtypes.canonicalize_dtype(checked) != checked:
        raise TypeError(
            f"{name}: expected a dtype that JAX is set to, got {checked}. Pass jnp.float32, or enable jax_enable_x64."
        )
    return checked
