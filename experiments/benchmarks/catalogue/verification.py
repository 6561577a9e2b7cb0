"""The check of the catalogue itself: that what is called a bug is one, by measures that no checker here uses.

In float64 a bug has to change the gradient, and what is called right has to agree with ``jax.grad``; where that is no
measure, with the one-sided differences of the loss along every coordinate. What a bug may be called is compared with
the facts about the two gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.catalogue.case import Case

SMALLEST_BUG = 1e-6
"""The least relative change of a leaf that counts as a bug."""
FLOAT32_ROUNDING = 1e-3
"""How far float32 may lead a right formula astray, relative to the leaf's largest entry."""
BY_FACTS = {
    *("zero", "scaled", "sign", "swapped", "shape", "nonfinite", "unit", "element", "offset_by_parameter"),
}
"""Causes that the two gradients alone prove. The others need the loss."""


def verify(case: Case) -> None:
    """Hold a case against what the catalogue promises.

    Raises:
        AssertionError: the case isn't what it says.
    """
    right = case.right or case.grad_fn
    params, args = case.make("float64")
    _verify_right_in_float64(case, right, params, args)
    for dtype in case.dtypes:
        _verify_loss(case, dtype)
    if "float32" in case.dtypes:
        gaps = _float32_gaps(case, right)
        assert max(gaps.values()) <= FLOAT32_ROUNDING, f"{case.name}: the right gradient is off in float32, {gaps}"
    if not case.causes:
        return
    assert case.right is not None, f"{case.name}: no right gradient beside the wrong one"
    if case.dtypes == ("float32",) and "unstable" in case.causes:
        _verify_unstable(case, params, args)
    else:
        _verify_bug(case)


def _verify_right_in_float64(case, right, params, args):
    by_hand, wanted = _leaves(right(params, *args)), _leaves(params)
    assert list(by_hand) == list(wanted), f"{case.name}: the tree of the right gradient is another"
    for path, leaf in wanted.items():
        kinds = (by_hand[path].shape, by_hand[path].dtype), (leaf.shape, leaf.dtype)
        assert kinds[0] == kinds[1], f"{case.name}{path}: {kinds[0]} for a parameter of {kinds[1]}"
    if case.autodiff_differs:
        outside = _outside_one_sided(case, params, args, by_hand)
        assert max(outside.values()) < 1e-3, f"{case.name}: beyond the one-sided derivatives by {outside}"
        return
    by_autodiff = _leaves(jax.grad(case.loss_fn)(params, *args))
    for path in wanted:
        gap = _gap(by_hand[path], by_autodiff[path], case.scale)
        assert gap <= case.tolerance, f"{case.name}{path}: the right gradient is {gap:.1e} from autodiff's"


def _verify_loss(case, dtype):
    params, args = case.make(dtype)
    loss = case.loss_fn(params, *args)
    assert loss.shape == (), f"{case.name}: the loss has shape {loss.shape}"
    assert np.isfinite(loss), f"{case.name}: the loss is {loss} in {dtype}"


def _float32_gaps(case, grad_fn):
    """How far a gradient in float32 is from the right one in float64, at the same numbers, leaf by leaf."""
    given = case.make("float32")
    params, args = given
    reference = case.right or case.grad_fn
    by_hand = _leaves(grad_fn(params, *args))
    if case.other_in_float32:
        exact = _leaves(jax.grad(case.loss_fn)(params, *args))
    else:
        params, args = jax.tree.map(_in_float64, given)
        exact = _leaves(reference(params, *args))
    return {path: _gap(by_hand[path], exact[path], case.scale) for path in exact}


def _in_float64(leaf):
    dtype = getattr(leaf, "dtype", None)
    wider = {"float32": "float64", "complex64": "complex128"}.get(str(dtype))
    return leaf if wider is None else leaf.astype(wider)


def _verify_unstable(case, params, args):
    by_hand, right = _leaves(case.grad_fn(params, *args)), _leaves(case.right(params, *args))
    for path in right:
        gap = _gap(by_hand[path], right[path], case.scale)
        assert gap < 1e-7, f"{case.name}{path}: {gap:.1e} off in float64, where it should be right"
    gaps = _float32_gaps(case, case.grad_fn)
    at_leaf = max(gaps.values()) if case.leaf is None else gaps[case.leaf]
    assert not at_leaf <= FLOAT32_ROUNDING, f"{case.name}: right in float32 too, {gaps}"


def _verify_bug(case):
    # In float64 wherever the case exists there.
    params, args = case.make(case.dtypes[0])
    by_hand, right = _leaves(case.grad_fn(params, *args)), _leaves(case.right(params, *args))
    wrong = {path for path in right if _differs(by_hand[path], right, path, case.scale)}
    assert wrong, f"{case.name}: nothing is wrong"
    assert case.leaf is None or case.leaf in wrong, f"{case.name}: {case.leaf} isn't wrong, {sorted(wrong)} are"
    if case.autodiff_differs:
        outside = _outside_one_sided(case, params, args, by_hand)
        at_leaf = max(outside.values()) if case.leaf is None else outside[case.leaf]
        assert not at_leaf < 1e-2, f"{case.name}: within the one-sided derivatives"
    params = _leaves(params)
    for path in wrong if case.leaf is None else (case.leaf,):
        facts = _facts(path, by_hand[path], right, params[path])
        claimed = case.causes & BY_FACTS
        # Of a leaf with one entry, every number is a multiple of every other.
        single = by_hand[path].size == 1 and "scaled" in facts
        only = single or not case.causes <= BY_FACTS or facts <= case.causes
        assert only, f"{case.name}{path}: {sorted(facts)} too, not only {sorted(case.causes)}"
        assert claimed <= facts, f"{case.name}{path}: {sorted(claimed)} claimed, {sorted(facts)} found"


def _differs(by_hand, right, path, scale):
    if (by_hand.shape, by_hand.dtype) != (right[path].shape, right[path].dtype):
        return True
    # Where the right gradient is zero, the others say what is large.
    size = max(scale * SMALLEST_BUG, _largest(right[path])) or max(map(_largest, right.values())) or 1.0
    return not _largest(by_hand - right[path]) <= SMALLEST_BUG * size


def _facts(path, by_hand, right, parameter):
    """The causes that the numbers of a leaf bear out."""
    correct = right[path]
    if by_hand.shape != correct.shape:
        return {"shape"}
    if by_hand.dtype != correct.dtype:
        return {"dtype"}
    if not np.isfinite(by_hand).all():
        return {"nonfinite"}
    if not by_hand.any():
        return {"zero"}
    facts = set()
    close = 1e-7 * max(_largest(by_hand), _largest(correct))
    if _largest(by_hand + correct) <= close:
        facts.add("sign")
    elif _is_multiple(by_hand, correct):
        facts.add("scaled")
    for direction in (parameter, np.sign(parameter)):
        if _is_multiple(by_hand - correct, direction) and not _is_multiple(direction, correct * 0 + 1):
            facts.add("offset_by_parameter")
    if correct.ndim == 2 and correct.shape[0] == correct.shape[1] and _largest(by_hand - correct.T) <= close:
        facts.add("transposed")
    others = [other for name, other in right.items() if name != path and other.shape == correct.shape]
    if any(_largest(by_hand - other) <= close for other in others):
        facts.add("swapped")
    wrong = np.abs(by_hand - correct) > close
    # A line that is zero on both sides says nothing.
    nonzero = (by_hand != 0) | (correct != 0)
    if wrong.ndim > 1 and any(_whole_lines(wrong, nonzero, axis) for axis in range(wrong.ndim)):
        facts.add("unit")
    elif 1 <= wrong.sum() <= 3 and 3 * wrong.sum() <= wrong.size:
        facts.add("element")
    return facts


def _whole_lines(wrong, nonzero, axis):
    """Whether some of the lines across an axis, rows or columns, are wrong all along and the others right."""
    wrong, nonzero = (np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1) for array in (wrong, nonzero))
    wrong = wrong[nonzero.any(axis=1)]
    some, every = wrong.any(axis=1), wrong.all(axis=1)
    return 0 < some.sum() < len(some) and (some == every).all()


def _is_multiple(first, second):
    size = np.vdot(second, second).real
    if not size or not _largest(first):
        return False
    factor = np.vdot(second, first) / size
    if abs(np.imag(factor)) > 1e-9 * abs(factor):
        return False
    return _largest(first - factor * second) <= 1e-7 * _largest(first)


def _outside_one_sided(case, params, args, grads):
    """How far beyond the one-sided derivatives of the loss a gradient is, relative to the largest of a leaf."""
    loss = jax.jit(lambda params: case.loss_fn(params, *args))
    leaves, structure = jax.tree.flatten(params)
    start, outside = float(loss(params)), {}
    for number, (path, grad) in enumerate(grads.items()):
        beyond, largest = 0.0, 0.0
        for place in np.ndindex(leaves[number].shape):
            slopes = []
            for step in (1e-6, -1e-6):
                moved = [jnp.asarray(leaf) for leaf in leaves]
                moved[number] = moved[number].at[place].add(step)
                slopes.append((float(loss(jax.tree.unflatten(structure, moved))) - start) / step)
            value = float(grad[place])
            distance = np.nan if np.isnan(value) else max(min(slopes) - value, value - max(slopes), 0.0)
            beyond, largest = (
                np.fmax(beyond, distance) if np.isfinite(distance) else np.inf,
                max(largest, *map(abs, slopes)),
            )
        outside[path] = beyond / (largest or 1.0)
    return outside


def _gap(by_hand, right, scale):
    if not right.size:
        return 0.0
    gap = _largest(by_hand.astype(right.dtype) - right)
    return 0.0 if gap == 0 else gap / (max(_largest(right), scale) or 1.0)


def _largest(array):
    """Of the absolute values; NaN if one is."""
    return float(np.abs(array).max()) if array.size else 0.0


def _leaves(tree):
    """By their paths, without the dot in front where the tree is a named tuple."""
    return {
        jax.tree_util.keystr(path).lstrip("."): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
