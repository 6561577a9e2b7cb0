"""Comparing two gradient trees leaf by leaf: shapes and dtypes first, then values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn.gradcheck.diagnosis import diagnose_leaf, diagnose_tree
from funcnn.gradcheck.report import Cause, GradientReport, LeafReport


def compare_gradients(
    by_hand: PyTree, by_autodiff: PyTree, *, params: PyTree, returned: PyTree, spacing: float
) -> GradientReport:
    """Compare a gradient written by hand with autodiff's, leaf by leaf.

    An entry may differ by ε^¾ of the leaf's largest entry, with ε the spacing of the numbers at 1: that leaves a
    quarter of the digits to the different order of the same sums. Rounding in the rest of the tree reaches every leaf
    (a bias in front of batch normalization has a gradient of nothing else), so 16 ε of the tree's largest entry come
    on top.

    Args:
        by_hand, by_autodiff: the gradients, of one structure.
        params: what they are gradients by, as the caller gave it.
        returned: the gradient by hand as the caller's function returned it: its shapes, dtypes and finiteness count.
        spacing: ε of the precision in which the two were computed.

    Returns:
        The report.

    Example:
        >>> import jax.numpy as jnp
        >>> w, half = {"w": jnp.array([2.0, 4.0])}, {"w": jnp.array([1.0, 2.0])}
        >>> report = compare_gradients(half, w, params=w, returned=half, spacing=1e-7)
        >>> report.ok, report.leaves[0].cause
        (False, 'scaled')
    """
    references = [_wide(leaf) for leaf in jax.tree.leaves(by_autodiff)]
    floor = 16 * spacing * max(map(_largest, references), default=0.0)
    compare = partial(_compare_leaf, spacing=spacing, floor=floor)
    paths = (jax.tree_util.keystr(path).lstrip(".") for path, _ in jax.tree_util.tree_leaves_with_path(params))
    gradients = map(_wide, jax.tree.leaves(by_hand))
    leaves = tuple(map(compare, paths, jax.tree.leaves(params), jax.tree.leaves(returned), gradients, references))
    return GradientReport(all(leaf.ok for leaf in leaves), leaves, diagnose_tree(leaves))


def _compare_leaf(path, param, own, hand, reference, *, spacing, floor) -> LeafReport:
    scale = _largest(reference)
    tolerance = spacing**0.75 * scale + floor
    difference, relative, exact = np.nan, np.nan, False
    cause: Cause | None = None
    detail = ""
    if jnp.shape(own) != param.shape or hand.shape != reference.shape:
        cause, detail = "shape", f"shape {jnp.shape(own)} where the parameter has {param.shape}"
    else:
        with np.errstate(invalid="ignore"):
            difference = float(np.max(np.abs(hand - reference), initial=0.0))
        relative = difference / scale if scale else (0.0 if difference == 0 else np.inf)
        exact = bool(np.array_equal(hand, reference))
        if jnp.result_type(own) != param.dtype:
            cause, detail = "dtype", f"dtype {jnp.result_type(own)} where the parameter has {param.dtype}"
        elif np.isfinite(hand).all() and not np.isfinite(_wide(own)).all():
            cause, detail = "nonfinite", f"finite in float64, but not in the parameter's own {param.dtype}"
        elif not difference <= tolerance:
            cause, detail = diagnose_leaf(hand, reference, tolerance)
    return LeafReport(
        path, param.shape, str(param.dtype), cause is None, exact, difference, relative, tolerance, cause, detail
    )


def _wide(array) -> np.ndarray:
    values = np.asarray(array)
    return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def _largest(array: np.ndarray) -> float:
    sizes = np.abs(array)
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
