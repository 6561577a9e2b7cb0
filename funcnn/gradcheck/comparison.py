"""Comparing two gradient trees: structure, then shapes and dtypes, then values."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from funcnn._checks import check_same_structure
from funcnn.gradcheck.diagnosis import diagnose_leaf, diagnose_tree
from funcnn.gradcheck.report import Cause, GradientReport, LeafReport


def compare_gradients(by_hand: PyTree, by_autodiff: PyTree) -> GradientReport:
    """Compare a gradient written by hand with autodiff's, leaf by leaf.

    An entry may differ by ε^¾ of the leaf's largest entry, with ε the dtype's spacing at 1: that leaves a quarter of
    the digits to the different order of the same sums. Rounding in the rest of the tree reaches every leaf (a bias in
    front of batch normalization has a gradient of nothing else), so 16 ε of the tree's largest entry come on top.

    Args:
        by_hand: the gradient in question.
        by_autodiff: the reference, of the parameters' structure, shapes and dtypes.

    Returns:
        The report.

    Raises:
        ValueError: the two trees have different structures.

    Example:
        >>> import jax.numpy as jnp
        >>> report = compare_gradients({"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([2.0, 4.0])})
        >>> report.ok, report.leaves[0].cause
        (False, 'scaled')
    """
    check_same_structure("check_gradients(grad_fn)", by_hand, by_autodiff, "the parameters")
    references = jax.tree_util.tree_leaves_with_path(by_autodiff)
    tree_scale = max((_largest(np.asarray(leaf)) for _, leaf in references), default=0.0)
    leaves = tuple(
        _compare_leaf(jax.tree_util.keystr(path).lstrip("."), jnp.asarray(hand), reference, tree_scale)
        for hand, (path, reference) in zip(jax.tree.leaves(by_hand), references, strict=True)
    )
    return GradientReport(all(leaf.ok for leaf in leaves), leaves, diagnose_tree(leaves))


def _compare_leaf(path: str, by_hand: Array, by_autodiff: Array, tree_scale: float) -> LeafReport:
    shape, dtype = by_autodiff.shape, by_autodiff.dtype
    spacing = float(jnp.finfo(dtype).eps)
    hand, reference = np.asarray(by_hand), np.asarray(by_autodiff)
    scale = _largest(reference)
    tolerance = spacing**0.75 * scale + 16 * spacing * tree_scale
    if by_hand.shape != shape:
        detail = f"shape {by_hand.shape} where the parameter has {shape}"
        return LeafReport(path, shape, str(dtype), False, False, np.nan, np.nan, tolerance, "shape", detail)
    difference = _largest_difference(hand, reference)
    relative = difference / scale if scale else (0.0 if difference == 0 else np.inf)
    cause: Cause | None
    exact = by_hand.dtype == dtype and np.array_equal(hand, reference, equal_nan=True)
    if by_hand.dtype != dtype:
        cause, detail = "dtype", f"dtype {by_hand.dtype} where the parameter has {dtype}"
    elif difference <= tolerance:
        cause, detail = None, ""
    else:
        cause, detail = diagnose_leaf(_wide(hand), _wide(reference), tolerance)
    return LeafReport(
        path, shape, str(dtype), cause is None, bool(exact), difference, relative, tolerance, cause, detail
    )


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _largest(array: np.ndarray) -> float:
    finite = np.abs(_wide(array))
    return float(np.max(finite, initial=0.0, where=np.isfinite(finite)))


def _largest_difference(hand: np.ndarray, reference: np.ndarray) -> float:
    """The largest |difference| of an entry; equal infinities and two NaNs don't differ, a NaN on one side does."""
    hand, reference = _wide(hand), _wide(reference)
    same = (hand == reference) | (np.isnan(hand) & np.isnan(reference))
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(hand - reference))
    difference = np.where(np.isnan(difference), np.inf, difference)
    return float(np.max(difference, initial=0.0))
