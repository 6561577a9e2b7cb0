"""Intermediate gradients: of tapped values, and of each layer for its true residuals and cotangent."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._checks import describe
from funcnn._numerics.arrays import as_float64, max_abs
from funcnn._tree_checks import describe_tree, same_structure
from funcnn.gradcheck.engine.comparison import Pair, Tolerance, compare, shared_floor
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.engine.problem import known_sizes
from funcnn.gradcheck.engine.taps import tap_gradients
from funcnn.gradcheck.engine.verdict import Decision
from funcnn.gradcheck.explanation.diagnosis import diagnose
from funcnn.gradcheck.explanation.leaf import Facts, Leaf
from funcnn.gradcheck.report import LeafReport, PropertyReport


def compare_step(
    pairs: Sequence[Pair], spacing: float, scale: float = 0.0, sizes: Sequence = ()
) -> tuple[LeafReport, ...]:
    """Return the rows of gradients that one step computes, with their causes.

    An entry may differ by ε^¾ of its leaf's largest entry, plus 16 ε of the step's largest entry (or of ``scale``, the
    cotangent), but by no more than half of a leaf that is larger than that.
    """
    floor = 16 * spacing * max([scale, *(max_abs(pair.reference) for pair in pairs)])
    origin = f"ε^¾ = {spacing**0.75:.1e} of the leaf's largest entry, and 16 ε of the step's"
    rows = []
    for pair in pairs:
        size = max_abs(pair.reference)
        allowed = spacing**0.75 * size + shared_floor(floor, size)
        rows.append(compare(pair, Tolerance(allowed, origin)))
    leaves = [Leaf(p.path, p.by_hand, p.reference, None, row.tolerance) for p, row in zip(pairs, rows, strict=True)]
    facts = Facts(leaves, sizes)
    for number, row in enumerate(rows):
        if row.cause == "unknown":
            cause, detail = diagnose(number, facts)
            rows[number] = row._replace(cause=cause, detail=detail)
    return tuple(rows)


def tapped_steps(comparison: Comparison, own_taps: dict[str, Any]) -> tuple[LeafReport, ...]:
    """Return a row for each tapped value's gradient, the last tap first."""
    gradients, sizes = comparison.gradients, known_sizes(comparison)
    if comparison.program is None:
        raise ValueError(
            "check_gradients(loss_fn): expected a loss that JAX can trace, for its taps, got one that it can't. "
            "Call jax.jit(loss_fn)(params, *args): its error names the line."
        )
    taps = gradients.gradient_and_taps(gradients.params)[1]
    rows: list[LeafReport] = []
    for name, references in tap_gradients(comparison.program, gradients.params, own_taps).items():
        ours, by_hand = jax.tree.leaves(own_taps[name]), jax.tree.leaves(taps[name])
        if len(ours) != len(references):
            rows.append(structure_row(name, f"{len(ours)} arrays where the value has {len(references)}"))
            continue
        pairs = [
            Pair(
                _path(name, number, references),
                value.shape,
                jnp.result_type(own),
                own,
                as_float64(hand),
                as_float64(value),
            )
            for number, (own, hand, value) in enumerate(zip(ours, by_hand, references, strict=True))
        ]
        rows += compare_step(pairs, comparison.call_spacing, sizes=sizes)
    return tuple(rows)


def _path(name, number, all_of_them):
    return name if len(all_of_them) == 1 else f"{name}[{number}]"


def structure_row(path: str, detail: str) -> LeafReport:
    """Return a row for a gradient with another tree structure than its value."""
    nothing = np.zeros(0)
    row = compare(Pair(path, (0,), nothing.dtype, nothing, nothing, nothing), Tolerance(0.0, ""))
    return row._replace(ok=False, exact=False, cause="structure", detail=detail)


def make_pairs(path: str, given: Any, expected: Any) -> list[Pair]:
    """Return the leaves of a gradient with those of the expected one.

    Raises:
        ValueError: the two have different tree structures.
    """
    if not same_structure(given, expected):
        raise ValueError("{} where {} is expected".format(*_different_descriptions(given, expected)))
    named = jax.tree_util.tree_leaves_with_path(expected)
    pairs = []
    for ours, (keys, value) in zip(jax.tree.leaves(given), named, strict=True):
        if not hasattr(ours, "dtype"):
            raise ValueError(f"{ours!r} where {describe(value)} is expected")
        pairs.append(
            Pair(path + jax.tree_util.keystr(keys), value.shape, value.dtype, ours, as_float64(ours), as_float64(value))
        )  # fmt: skip
    return pairs


def _different_descriptions(given: Any, expected: Any) -> list[str]:
    """Return two trees of different containers in words, as short as they differ."""
    for words in (describe_tree, lambda tree: f"{type(tree).__name__} of {describe_tree(tree)}"):
        described = [words(given), words(expected)]
        if described[0] != described[1]:
            return described
    return [str(jax.tree.structure(tree)) for tree in (given, expected)]


def verdict_on_properties(
    rows: Sequence[LeafReport], steps: Sequence[LeafReport], properties: Sequence[PropertyReport]
) -> Decision:
    """Return the verdict where the gradients agree in float64, and a step, a property or the own dtype fails."""
    if any(not row.ok for row in rows):
        return Decision("hand-written wrong", "the two agree in float64, but not in the caller's own dtype", {})
    if any(not row.ok for row in steps):
        return Decision("hand-written wrong", "the parameters' gradients agree, but a step on the way is wrong", {})
    failed = next(entry.name for entry in properties if entry.ok is False)
    return Decision("hand-written wrong", f"the values agree, but the gradient isn't right {failed}", {})
