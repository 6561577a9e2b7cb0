"""One question put to all witnesses: the comparison, the verdict and the diagnosis, in the order that they need."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import check_same_structure, numeric_array
from funcnn._numerics.arrays import as_float64
from funcnn._numerics.precision import allow_promotion
from funcnn._numerics.rounding import coarser_dtypes
from funcnn.gradcheck.engine.comparison import Pair, Tolerance, compare, noise_tolerances, relative_tolerances
from funcnn.gradcheck.engine.kinks import Kinks, find_kinks
from funcnn.gradcheck.engine.precision import Evaluated, Judged, evaluate, judging
from funcnn.gradcheck.engine.problem import contributions, known_sizes
from funcnn.gradcheck.engine.properties import Property, asked_properties, repeated
from funcnn.gradcheck.engine.stability import judge_stability, rounded_constants, rounded_data
from funcnn.gradcheck.engine.steps import other_fault, tapped_steps
from funcnn.gradcheck.engine.taps import split_taps
from funcnn.gradcheck.engine.verdict import Decision, arbitrate, confirm
from funcnn.gradcheck.explanation.diagnosis import diagnose
from funcnn.gradcheck.explanation.leaf import Facts, Leaf, loosen_tolerances
from funcnn.gradcheck.explanation.summary import explanation
from funcnn.gradcheck.report import Cost, GradientReport, LeafReport, PropertyReport


def examine(
    name: str,
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., PyTree],
    arguments: tuple,
    also: Sequence[Property] = (),
    further: Callable[[Judged], Sequence[PropertyReport]] = lambda judged: (),
    walked: Callable[[Judged], Sequence[LeafReport]] = lambda judged: (),
    settled: float = 0.0,
) -> GradientReport:
    """Compare a hand-written gradient with autodiff and the loss's measured slope.

    Args:
        name: the public function that asks, for error messages.
        loss_fn, grad_fn: of ``arguments``, differentiated by the first.
        arguments: the parameters, and what else both functions take.
        also: further properties to check.
        further: properties of the caller's own, asked for in the precision of the comparison.
        walked: the caller's own steps, likewise.
        settled: the least ε to judge by, where the loss's own derivative is a measured one.

    Returns:
        The report.

    Raises:
        ValueError: the gradient has another tree structure than the parameters.
    """

    def untapped(params, *rest):
        return split_taps(grad_fn(params, *rest), params)[0]

    started, calls = time.perf_counter(), Counter[str]()
    with jax.default_matmul_precision("highest"):
        own, taps = _split(name, evaluate(loss_fn, grad_fn, arguments, calls))
        twice = repeated(own)
        with judging(loss_fn, untapped, own, settled, traceable=twice.ok) as judged:
            pairs = _pairs(own, judged)
            rows, kinks = _beside_kinks(judged, pairs)
            rows, decision = _decided(judged, pairs, rows, kinks)
            rows = judge_stability(own, judged, pairs, rows)
            rows = _diagnosed(judged, pairs, rows, kinks)
            steps = (*(tapped_steps(judged, grad_fn, taps) if taps else ()), *walked(judged))
            rounding = functools.cache(lambda: [4 * tolerance.size for tolerance in noise_tolerances(judged, pairs)])
            properties = (twice, *asked_properties(judged, also, rounding), *further(judged))
    ok = all(row.ok for row in rows) and all(row.ok for row in steps) and all(entry.ok for entry in properties)
    if not ok and decision.verdict == "agrees":
        decision = other_fault(rows, steps, properties)
    report = GradientReport(
        ok=ok,
        leaves=tuple(rows),
        diagnosis="",
        verdict=decision.verdict,
        reason=decision.reason,
        steps=steps,
        properties=properties,
        precision=judged.precision + (f": {judged.reason}" if judged.reason else ""),
        cost=Cost(time.perf_counter() - started, calls["gradient"], calls["loss"]),
    )
    return report._replace(diagnosis=explanation(report, str(kinks) if kinks else ""))


def _split(name, evaluated: Evaluated):
    by_hand, taps = split_taps(evaluated.by_hand, evaluated.params)
    check_same_structure(f"{name}(grad_fn)", by_hand, evaluated.params, "the parameters")
    for leaf in jax.tree.leaves(by_hand):
        if not isinstance(leaf, jax.Array):
            numeric_array(f"{name}(grad_fn)", leaf)
    gradient = evaluated.gradient
    return evaluated._replace(by_hand=by_hand, gradient=lambda params: split_taps(gradient(params), params)[0]), taps


def _pairs(own: Evaluated, judged: Judged) -> list[Pair]:
    named = jax.tree_util.tree_leaves_with_path(own.params)
    gradients = zip(
        jax.tree.leaves(own.by_hand),
        jax.tree.leaves(judged.evaluated.by_hand),
        jax.tree.leaves(judged.evaluated.by_autodiff),
        strict=True,
    )
    return [
        Pair(
            jax.tree_util.keystr(path).lstrip("."),
            param.shape,
            param.dtype,
            ours,
            as_float64(by_hand),
            as_float64(reference),
        )
        for (path, param), (ours, by_hand, reference) in zip(named, gradients, strict=True)
    ]


def _beside_kinks(judged, pairs) -> tuple[list[LeafReport], Kinks | None]:
    """The gradients compared, and the kinks; where they differ, those too that only exact arithmetic shows."""
    compiled = judged.program is not None and judged.program.is_one_call
    kinks = find_kinks(judged, compiled=compiled)
    rows = _compared(judged, pairs, kinks)
    if compiled and any(row.cause == "unknown" for row in rows):
        kinks = find_kinks(judged, compiled=False)
        rows = _compared(judged, pairs, kinks)
    return rows, kinks


def _compared(judged, pairs, kinks) -> list[LeafReport]:
    rows = [compare(*both) for both in zip(pairs, relative_tolerances(judged, pairs), strict=True)]
    if all(row.cause != "unknown" for row in rows):
        return rows
    with allow_promotion():
        tolerances = noise_tolerances(judged, pairs)
    wider = [compare(*both) for both in zip(pairs, tolerances, strict=True)]
    wider = rounded_constants(judged, pairs, wider)
    wider = wider if kinks else rounded_data(judged, pairs, wider)
    detail = "the difference is rounding, measured in the arithmetic of both"
    return [
        after._replace(cause="noise", detail=after.detail or detail) if after.ok and not before.ok else after
        for before, after in zip(rows, wider, strict=True)
    ]


def _decided(judged, pairs, rows, kinks: Kinks | None) -> tuple[list[LeafReport], Decision]:
    """The rows with what kinks and the third witness clear of them, and the verdict."""
    if not rows:
        return rows, Decision("agrees", "there is nothing to compare", {})
    disputed = [number for number, row in enumerate(rows) if row.cause == "unknown"]
    if not disputed:
        if any(not row.ok for row in rows):
            reason = "a gradient has the shape and the dtype of its parameter"
            return rows, Decision("hand-written wrong", reason, {})
        decision = confirm(judged, pairs, kinks)
        for number in decision.blamed:
            detail = "autodiff says the same, but the loss has another slope"
            rows[number] = rows[number]._replace(ok=False, cause="unknown", detail=detail)
        return rows, decision
    if kinks:
        nearest = kinks.nearest([pair.by_hand for pair in pairs])
        for number in disputed:
            moved = compare(
                pairs[number]._replace(reference=nearest[number]),
                Tolerance(rows[number].tolerance, rows[number].tolerance_origin),
            )
            if moved.ok:
                low, high = kinks.sides_at(number, rows[number].worst)
                detail = f"between {low:.4g} and {high:.4g}, the one-sided derivatives of {kinks}"
                rows[number] = rows[number]._replace(ok=True, cause="kink", detail=detail, differences=())
        disputed = [number for number in disputed if not rows[number].ok]
        if not disputed:
            reason = "autodiff takes another side of a kink than the gradient by hand; both are right"
            return rows, Decision("agrees", reason, {})
    decision = arbitrate(judged, pairs, disputed, kinks)
    for number, at_kink in decision.cleared.items():
        detail = "between the one-sided derivatives" if at_kink else "right by the measured slope; autodiff is not"
        rows[number] = rows[number]._replace(ok=True, cause="kink" if at_kink else None, detail=detail, differences=())
    return rows, decision


def _diagnosed(judged, pairs, rows, kinks) -> list[LeafReport]:
    """The rows with their causes, by the reference that explains most: at a kink, either side may be meant."""
    if all(row.cause != "unknown" or row.detail for row in rows):
        return rows
    references = [[pair.reference for pair in pairs]]
    if kinks:
        references += [kinks.lower, kinks.upper]
    sizes = known_sizes(judged)
    params = [np.asarray(leaf) for leaf in jax.tree.leaves(judged.evaluated.params)]

    of_samples = functools.cache(functools.partial(contributions, judged))

    def by(reference):
        leaves = [
            Leaf(pair.path, pair.by_hand, expected, param, row.tolerance)
            for pair, expected, param, row in zip(pairs, reference, params, rows, strict=True)
        ]
        facts = Facts(leaves, sizes, of_samples)
        loose = loosen_tolerances(facts, max((float(jnp.finfo(pair.dtype).eps) for pair in pairs), default=0.0))

        def named(row, number):
            if row.cause != "unknown" or row.detail:
                return row
            found = (diagnose(number, facts), diagnose(number, loose))
            cause, detail = next((known for known in found if known[0] != "unknown"), found[0])
            detail += _coarse_steps(judged, row) if cause == "unknown" else ""
            return row._replace(cause=cause, detail=detail)

        return [named(row, number) for number, row in enumerate(rows)]

    with allow_promotion():
        return min(map(by, references), key=_unexplained)


def _coarse_steps(judged, row):
    """That a gradient, right to some digits, rounds to the dtype of those on its way, where the loss doesn't."""
    program = judged.gradient_program
    for dtype in coarser_dtypes(program, judged.spacing) if program else ():
        if row.relative_difference <= float(jnp.finfo(dtype).eps) ** 0.75:
            return f"; by hand it is rounded to {dtype} on the way, and right to the digits of that"
    return ""


def _unexplained(rows):
    """How much a diagnosis leaves open: leaves without a cause, and then how many causes it needs."""
    return sum(row.cause == "unknown" for row in rows), len({row.cause for row in rows})
