"""Comparing two gradient trees leaf by leaf: shapes and dtypes first, then values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn.gradcheck.diagnosis import diagnose_leaf, diagnose_tree
from funcnn.gradcheck.precision import Evaluated
from funcnn.gradcheck.report import Cause, GradientReport, LeafReport


def compare_gradients(judged: Evaluated, own: Evaluated, *, params: PyTree) -> GradientReport:
    """Compare a gradient written by hand with autodiff's, leaf by leaf.

    An entry may differ by ε^¾ of the leaf's largest entry, with ε the spacing of the numbers at 1: that leaves a
    quarter of the digits to the different order of the same sums. Rounding in the rest of the tree reaches every leaf
    (a bias in front of batch normalization has a gradient of nothing else), so 16 ε of the tree's largest entry come
    on top, but no more than half a leaf that is larger than that.

    Args:
        judged: the two gradients in the precision of the comparison.
        own: the two gradients in the parameters' own dtypes; shapes, dtypes and finiteness are judged by it.
        params: what they are gradients by.

    Returns:
        The report.
    """
    references = [_wide(leaf) for leaf in jax.tree.leaves(judged.by_autodiff)]
    compare = partial(
        _compare_leaf,
        spacing=judged.spacing,
        floor=16 * judged.spacing * max(map(_largest, references), default=0.0),
    )
    paths = (jax.tree_util.keystr(path).lstrip(".") for path, _ in jax.tree_util.tree_leaves_with_path(params))
    gradients = map(_wide, jax.tree.leaves(judged.by_hand))
    owns = zip(jax.tree.leaves(own.by_hand), jax.tree.leaves(own.by_autodiff), strict=True)
    leaves = tuple(map(compare, paths, jax.tree.leaves(params), owns, gradients, references))
    return GradientReport(all(leaf.ok for leaf in leaves), leaves, diagnose_tree(leaves))


def _compare_leaf(path, param, own, hand, reference, *, spacing, floor) -> LeafReport:
    own_hand, own_reference = own
    scale = _largest(reference)
    tolerance = spacing**0.75 * scale + (floor if scale <= floor else min(floor, scale / 2))
    difference, relative, exact = np.nan, np.nan, False
    cause: Cause | None = None
    detail = ""
    if jnp.shape(own_hand) != param.shape or hand.shape != reference.shape:
        cause, detail = "shape", f"shape {jnp.shape(own_hand)} where the parameter has {param.shape}"
    else:
        with np.errstate(invalid="ignore"):
            difference = float(np.max(np.abs(hand - reference), initial=0.0))
        relative = difference / scale if scale else (0.0 if difference == 0 else np.inf)
        exact = bool(np.array_equal(hand, reference))
        if jnp.result_type(own_hand) != param.dtype:
            cause, detail = "dtype", f"dtype {jnp.result_type(own_hand)} where the parameter has {param.dtype}"
        elif _finite(hand) and _finite(own_reference) and not _finite(own_hand):
            cause, detail = "nonfinite", f"finite in float64, but not in the parameter's own {param.dtype}"
        elif not difference <= tolerance:
            cause, detail = diagnose_leaf(hand, reference, tolerance)
    return LeafReport(
        path, param.shape, str(param.dtype), cause is None, exact, difference, relative, tolerance, cause, detail
    )


def _finite(array) -> bool:
    return bool(np.isfinite(_wide(array)).all())


def _wide(array) -> np.ndarray:
    values = np.asarray(array)
    return values.astype(np.complex128 if np.iscomplexobj(values) else np.float64)


def _largest(array: np.ndarray) -> float:
    sizes = np.abs(array)
    return float(np.max(sizes, initial=0.0, where=np.isfinite(sizes)))
