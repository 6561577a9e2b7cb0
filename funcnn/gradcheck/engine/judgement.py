"""The judgement of a gradient: each leaf compared, at kinks and at a solver's solution too, and the verdict."""

from typing import NamedTuple

import jax
import numpy as np

from funcnn._numerics.arrays import as_float64, max_abs
from funcnn._numerics.precision import allow_promotion
from funcnn.gradcheck.engine.comparison import Pair, Tolerance, compare, noise_tolerances, relative_tolerances
from funcnn.gradcheck.engine.kinks import Kinks, find_kinks
from funcnn.gradcheck.engine.measurement import Reference, reference_of, wrong_leaves_along_directions
from funcnn.gradcheck.engine.precision import Comparison, Gradients
from funcnn.gradcheck.engine.rules import OtherRule, find_other_rules
from funcnn.gradcheck.engine.solvers import MORE_ITERATIONS, describe_solver_error
from funcnn.gradcheck.engine.stability import accept_rounded_constants, accept_rounded_data
from funcnn.gradcheck.engine.ties import find_ties
from funcnn.gradcheck.engine.verdict import NO_SLOPE, Decision, arbitrate, confirm
from funcnn.gradcheck.report import LeafReport

_OTHER_SLOPE = "the loss has another slope than the one by hand"
_MAX_TOLERANCE = 0.05  # of a leaf's largest entry, beyond which nothing is called right


class Judged(NamedTuple):
    """The leaves compared, and the verdict; ``is_measured`` if measured slopes are the reference."""

    comparison: Comparison
    pairs: list[Pair]
    rows: list[LeafReport]
    kinks: Kinks | None
    decision: Decision
    rules: list[OtherRule]
    is_measured: bool


def judge(own: Gradients, comparison: Comparison) -> Judged:
    """Return the leaves of a gradient beside their references, and the verdict."""
    pairs, reference = _pairs(own, comparison)
    rows, kinks = _compare_at_kinks(comparison, pairs)
    rows, decision, rules = _decide_beside_rules(comparison, pairs, rows, kinks, reference)
    return Judged(comparison, pairs, rows, kinks, decision, rules, bool(reference.errors))


def judge_solved(own: Gradients, before: Judged, longer: Comparison) -> Judged:
    """Return the verdict with the loops of a solver longer, and by how much it moves the gradient."""
    after = judge(own, longer)
    detail = "the difference is the error of the solver in the loss, which stops early"
    rows = [
        late._replace(cause="noise", detail=detail) if late.ok and not early.ok else late
        for early, late in zip(before.rows, after.rows, strict=True)
    ]
    reason = f"{after.decision.reason}, with the loops of the loss {MORE_ITERATIONS} iterations longer"
    reason += f"; {describe_solver_error(before.pairs, after.pairs)}"
    return after._replace(rows=rows, decision=after.decision._replace(reason=reason))


def _count(reference, pairs) -> str:
    """Return the number of measured entries in words."""
    if _is_all_measured(reference, pairs):
        return f"{reference.measured:,} entries"
    total = sum(pair.reference.size for pair in pairs)
    return f"{reference.measured:,} of {total:,} entries and along random directions"


def _is_all_measured(reference, pairs) -> bool:
    return reference.measured >= sum(pair.reference.size for pair in pairs)


def _pairs(own: Gradients, comparison: Comparison) -> tuple[list[Pair], Reference]:
    params = jax.tree_util.tree_leaves_with_path(own.params)
    reference = reference_of(comparison)
    gradients = zip(
        jax.tree.leaves(own.by_hand), jax.tree.leaves(comparison.gradients.by_hand), reference.values, strict=True
    )
    pairs = [
        Pair(
            jax.tree_util.keystr(path).lstrip("."), param.shape, _own_dtype(param, ours), ours,
            as_float64(by_hand), values, None if reference.errors is None else reference.errors[number],
        )
        for number, ((path, param), (ours, by_hand, values)) in enumerate(zip(params, gradients, strict=True))
    ]  # fmt: skip
    return pairs, reference


def _own_dtype(param, ours):
    """Return the dtype of a parameter, in JAX's present setting where the gradient is JAX's."""
    return param.dtype if isinstance(ours, np.ndarray) else jax.dtypes.canonicalize_dtype(param.dtype)


def _compare_at_kinks(comparison, pairs) -> tuple[list[LeafReport], Kinks | None]:
    """Return the compared leaves, and the kinks.

    Compiled code may round a tie away. If a difference remains, what is nearly a tie counts as one.
    """
    ties = find_ties(comparison.program, comparison.gradients.params, comparison.spacing)
    kinks = find_kinks(comparison, ties.exact)
    rows = _compare_leaves(comparison, pairs, kinks)
    if ties.near and any(row.cause == "unknown" for row in rows):
        nearly = find_kinks(comparison, ties.near)
        if nearly is not None:
            return _compare_leaves(comparison, pairs, nearly), nearly
    return rows, kinks


def _compare_leaves(comparison, pairs, kinks) -> list[LeafReport]:
    """Return a row for each leaf. The rounding is measured only if a leaf differs by more than ε^¾."""
    rows = [compare(*both) for both in zip(pairs, relative_tolerances(comparison, pairs), strict=True)]
    if all(row.cause != "unknown" for row in rows):
        return rows
    with allow_promotion():
        tolerances = noise_tolerances(comparison, pairs)
    wider = [compare(*both) for both in zip(pairs, tolerances, strict=True)]
    wider = accept_rounded_constants(comparison, pairs, wider)
    wider = wider if kinks else accept_rounded_data(comparison, pairs, wider)
    detail = "the difference is rounding, measured in the arithmetic of both"
    return [
        after._replace(cause="noise", detail=after.detail or detail) if after.ok and not before.ok else after
        for before, after in zip(rows, wider, strict=True)
    ]


def _decide_beside_rules(
    comparison, pairs, rows, kinks, reference
) -> tuple[list[LeafReport], Decision, list[OtherRule]]:
    """Return the rows and the verdict, and the rules in the loss that may be meant to differ from its derivative."""
    decided, decision = _decide(comparison, pairs, list(rows), kinks, reference)
    is_needed = decision.blamed or decision.verdict in ("undecided", "autodiff wrong")
    rules = find_other_rules(comparison) if is_needed and comparison.by_autodiff is not None else []
    if not rules:
        return decided, decision, []
    if not all(rule.fact for rule in rules):
        names = " and ".join(rule.name for rule in rules)
        reason = f"{decision.reason}; the rule of {names} in the loss isn't the derivative of its function"
        return decided, decision._replace(reason=reason), []
    facts = "; ".join(f"the rule of {rule.name} isn't the derivative of its function: {rule.fact}" for rule in rules)
    beside = "by hand and autodiff agree, but the loss has another slope" if decision.blamed else decision.reason
    return rows if decision.blamed else decided, Decision("undecided", f"{beside}; {facts}", {}), rules


def _decide(comparison, pairs, rows, kinks: Kinks | None, reference: Reference) -> tuple[list[LeafReport], Decision]:
    """Return the verdict, and the rows without the differences that kinks or the measured slope explain."""
    if not rows:
        return rows, Decision("agrees", "there is nothing to compare", {})
    disputed = [number for number, row in enumerate(rows) if row.cause == "unknown"]
    if not disputed and any(not row.ok for row in rows):
        reason = "a gradient has the shape and the dtype of its parameter"
        return rows, Decision("hand-written wrong", reason, {})
    if reference.errors is not None:
        return _decide_by_measurement(comparison, pairs, rows, disputed, reference)
    if not disputed:
        if (decision := _decide_coarse(comparison, pairs, rows)) is not None:
            return rows, decision
        decision = confirm(comparison, pairs, kinks)
        for number in decision.blamed:
            detail = "autodiff says the same, but the loss has another slope"
            rows[number] = rows[number]._replace(ok=False, cause="unknown", detail=detail)
        return rows, decision
    if kinks:
        rows = _accept_kinks(pairs, rows, disputed, kinks)
        disputed = [number for number in disputed if not rows[number].ok]
        if not disputed:
            reason = "autodiff takes another side of a kink than the gradient by hand; both are right"
            return rows, Decision("agrees", reason, {})
    decision = arbitrate(comparison, pairs, disputed, kinks)
    for number, at_kink in decision.cleared.items():
        detail = "between the one-sided derivatives" if at_kink else "right by the measured slope; autodiff is not"
        rows[number] = rows[number]._replace(ok=True, cause="kink" if at_kink else None, detail=detail, differences=())
    return rows, decision


def _decide_coarse(comparison, pairs, rows) -> Decision | None:
    """Return that nothing is decided, where the tolerance is so coarse that a wrong gradient would be within it."""
    for row, pair in zip(rows, pairs, strict=True):
        where, size = row.path or "the root", max(max_abs(pair.reference), max_abs(pair.by_hand))
        if comparison.coarse and not row.exact and row.tolerance > _MAX_TOLERANCE * size:
            return Decision(
                "undecided",
                f"the code rounds to {comparison.coarse} where a check can't take that out, so that a difference of "
                f"{row.tolerance / size if size else np.inf:.0%} in {where} can't be told from rounding; give a plain "
                "function in float32 as the loss, or as reference=",
                {},
            )
        # A leaf within its tolerance is nil beside the others. What the rounding of the data explains is beyond it.
        if row.cause == "noise" and _MAX_TOLERANCE * size < row.max_abs_difference <= row.tolerance < size:
            return Decision(
                "undecided",
                f"the gradients differ by {row.max_abs_difference / size:.0%} of the largest entry of {where}, which "
                "may be rounding, as the leaf is so small beside the others; check its parameter alone",
                {},
            )
    return None


def _decide_by_measurement(comparison, pairs, rows, disputed, reference) -> tuple[list[LeafReport], Decision]:
    """Return the verdict where the measured slopes are the only other witness."""
    for number, row in enumerate(rows):
        if row.ok and reference.at_kinks[number].any():
            rows[number] = row._replace(cause="kink", detail="between the one-sided slopes of the loss")
    unmeasured = [number for number in disputed if not np.isfinite(pairs[number].reference).all()]
    if disputed and len(unmeasured) == len(disputed) and np.isfinite(pairs[disputed[0]].by_hand).all():
        return rows, Decision("undecided", NO_SLOPE, {})
    if not disputed and not _is_all_measured(reference, pairs):
        for number in wrong_leaves_along_directions(comparison, [pair.by_hand for pair in pairs]):
            if rows[number].cause != "kink":
                rows[number] = rows[number]._replace(ok=False, cause="unknown", detail=_OTHER_SLOPE)
                disputed.append(number)
    if disputed and rows[disputed[0]].detail == _OTHER_SLOPE:
        where = rows[disputed[0]].path or "the root"
        return rows, Decision("hand-written wrong", f"along random directions of {where} {_OTHER_SLOPE}", {})
    if disputed:
        row = rows[disputed[0]]
        where = f"{row.path or 'the root'}{list(row.worst) if row.worst else ''}"
        reason = f"at {where} the loss has the slope {row.by_autodiff:z.6g}, by hand it is {row.by_hand:z.6g}"
        return rows, Decision("hand-written wrong", reason, {})
    tree = max(max_abs(pair.by_hand) for pair in pairs)
    nil = 64 * max(comparison.spacing * tree, comparison.resolution)
    largest = 0.0
    for row, pair, errors in zip(rows, pairs, reference.errors, strict=True):
        # A leaf that is nil beside the others is confirmed to be small.
        size = max_abs(pair.by_hand) if max_abs(pair.by_hand) > nil else tree
        share = max_abs(errors) / size if size else 0.0
        if share > _MAX_TOLERANCE:
            reason = (
                f"the slopes of the loss can only be measured to {min(share, 99):.0%} of the largest entry of "
                f"{row.path or 'the root'}, because the loss rounds to few digits beside it; give a loss of more "
                "digits, or a plain function as reference="
            )
            return rows, Decision("undecided", reason, {})
        largest = max(largest, share)
    measured = (
        f"the slopes of the loss, measured by {_count(reference, pairs)}, confirm it to {max(largest, 1e-16):.0e}"
    )
    return rows, Decision("agrees", measured, {})


def _accept_kinks(pairs, rows, disputed, kinks) -> list[LeafReport]:
    """Accept the disputed leaves that lie between the sides of the kinks."""
    nearest = kinks.nearest([pair.by_hand for pair in pairs])
    for number in disputed:
        tolerance = Tolerance(rows[number].tolerance, rows[number].tolerance_origin)
        if compare(pairs[number]._replace(reference=nearest[number]), tolerance).ok:
            low, high = kinks.sides_at(number, rows[number].worst)
            detail = f"between {low:.4g} and {high:.4g}, the one-sided derivatives of {kinks}"
            rows[number] = rows[number]._replace(ok=True, cause="kink", detail=detail, differences=())
    return rows
