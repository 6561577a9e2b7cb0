"""The examination of a gradient: comparison, kinks, verdict, stability, diagnosis, steps and properties, in order."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import check_same_structure, numeric_array
from funcnn._numerics.arrays import as_float64
from funcnn._numerics.precision import allow_promotion
from funcnn.gradcheck.engine.comparison import Pair, Tolerance, compare, noise_tolerances, relative_tolerances
from funcnn.gradcheck.engine.kinks import Kinks, find_kinks
from funcnn.gradcheck.engine.precision import Comparison, Gradients, double_precision, evaluate
from funcnn.gradcheck.engine.problem import describe_problem
from funcnn.gradcheck.engine.properties import Property, repeatability, traced_properties
from funcnn.gradcheck.engine.stability import accept_rounded_constants, accept_rounded_data, check_stability
from funcnn.gradcheck.engine.steps import tapped_steps, verdict_on_properties
from funcnn.gradcheck.engine.taps import split_taps
from funcnn.gradcheck.engine.verdict import Decision, arbitrate, confirm
from funcnn.gradcheck.explanation.diagnosis import diagnose_leaves
from funcnn.gradcheck.explanation.summary import explanation
from funcnn.gradcheck.report import Cost, GradientReport, LeafReport, PropertyReport


def examine(
    name: str,
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., PyTree],
    arguments: tuple,
    also: Sequence[Property] = (),
    more_properties: Callable[[Comparison], Sequence[PropertyReport]] = lambda comparison: (),
    more_steps: Callable[[Comparison], Sequence[LeafReport]] = lambda comparison: (),
    min_spacing: float = 0.0,
) -> GradientReport:
    """Compare a hand-written gradient with autodiff and with the measured slope of the loss.

    Args:
        name: the public function, for error messages.
        loss_fn, grad_fn: functions of ``arguments``, differentiated by the first one.
        arguments: the parameters, and the further arguments of both functions.
        also: further properties to check.
        more_properties: properties of the public check, evaluated in the precision of the comparison.
        more_steps: rows for intermediate gradients, likewise.
        min_spacing: a lower bound of the ε of the comparison, for a reference that is itself measured.

    Returns:
        The report.

    Raises:
        ValueError: the gradient has another tree structure than the parameters.
    """

    def gradient_without_taps(params, *rest):
        return split_taps(grad_fn(params, *rest), params)[0]

    start, calls = time.perf_counter(), Counter[str]()
    with jax.default_matmul_precision("highest"):
        own, taps = _split_gradients(name, evaluate(loss_fn, grad_fn, arguments, calls))
        twice = repeatability(own)
        with double_precision(loss_fn, gradient_without_taps, own, min_spacing, traceable=twice.ok) as comparison:
            pairs = _pairs(own, comparison)
            rows, kinks = _compare_at_kinks(comparison, pairs)
            rows, decision = _decide(comparison, pairs, rows, kinks)
            rows = check_stability(own, comparison, pairs, rows)
            rows = diagnose_leaves(describe_problem(comparison), rows, *_gradients_by_side(pairs, kinks))
            steps = (*(tapped_steps(comparison, grad_fn, taps) if taps else ()), *more_steps(comparison))
            rounding = functools.cache(
                lambda: [4 * tolerance.size for tolerance in noise_tolerances(comparison, pairs)]
            )
            properties = (twice, *traced_properties(comparison, also, rounding), *more_properties(comparison))
    ok = all(row.ok for row in rows) and all(row.ok for row in steps) and all(entry.ok for entry in properties)
    if not ok and decision.verdict == "agrees":
        decision = verdict_on_properties(rows, steps, properties)
    report = GradientReport(
        ok=ok,
        leaves=tuple(rows),
        diagnosis="",
        verdict=decision.verdict,
        reason=decision.reason,
        steps=steps,
        properties=properties,
        precision=comparison.precision + (f": {comparison.reason}" if comparison.reason else ""),
        cost=Cost(time.perf_counter() - start, calls["gradient"], calls["loss"]),
    )
    return report._replace(diagnosis=explanation(report, str(kinks) if kinks else ""))


def _split_gradients(name, gradients: Gradients):
    by_hand, taps = split_taps(gradients.by_hand, gradients.params)
    check_same_structure(f"{name}(grad_fn)", by_hand, gradients.params, "the parameters")
    for leaf in jax.tree.leaves(by_hand):
        if not isinstance(leaf, jax.Array):
            numeric_array(f"{name}(grad_fn)", leaf)
    gradient = gradients.gradient
    return gradients._replace(by_hand=by_hand, gradient=lambda params: split_taps(gradient(params), params)[0]), taps


def _pairs(own: Gradients, comparison: Comparison) -> list[Pair]:
    params = jax.tree_util.tree_leaves_with_path(own.params)
    gradients = zip(
        jax.tree.leaves(own.by_hand),
        jax.tree.leaves(comparison.gradients.by_hand),
        jax.tree.leaves(comparison.gradients.by_autodiff),
        strict=True,
    )
    return [
        Pair(
            jax.tree_util.keystr(path).lstrip("."), param.shape, param.dtype, ours,
            as_float64(by_hand), as_float64(reference),
        )
        for (path, param), (ours, by_hand, reference) in zip(params, gradients, strict=True)
    ]  # fmt: skip


def _compare_at_kinks(comparison, pairs) -> tuple[list[LeafReport], Kinks | None]:
    """Return the compared leaves, and the kinks.

    Compiled code may round a tie away. If a compiled loss leaves a difference, its kinks are searched once more,
    operation by operation.
    """
    compiled = comparison.program is not None and comparison.program.is_one_call
    kinks = find_kinks(comparison, compiled=compiled)
    rows = _compare_leaves(comparison, pairs, kinks)
    if compiled and any(row.cause == "unknown" for row in rows):
        kinks = find_kinks(comparison, compiled=False)
        rows = _compare_leaves(comparison, pairs, kinks)
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


def _decide(comparison, pairs, rows, kinks: Kinks | None) -> tuple[list[LeafReport], Decision]:
    """Return the verdict, and the rows without the differences that kinks or the measured slope explain."""
    if not rows:
        return rows, Decision("agrees", "there is nothing to compare", {})
    disputed = [number for number, row in enumerate(rows) if row.cause == "unknown"]
    if not disputed:
        if any(not row.ok for row in rows):
            reason = "a gradient has the shape and the dtype of its parameter"
            return rows, Decision("hand-written wrong", reason, {})
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


def _gradients_by_side(pairs, kinks: Kinks | None) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Return the gradient by hand, and what it may mean: autodiff's, and at a kink either side."""
    sides = [kinks.lower, kinks.upper] if kinks else []
    return [pair.by_hand for pair in pairs], [[pair.reference for pair in pairs], *sides]
