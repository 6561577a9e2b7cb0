"""The examination of a gradient: comparison, kinks, verdict, stability, diagnosis, steps and properties, in order."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.precision import highest_matmul_precision
from funcnn._numerics.program import leave_out_of_lines, primitive_names
from funcnn._numerics.widening import OPAQUE
from funcnn._untraceable import errors_of_tracing
from funcnn.gradcheck.engine.comparison import noise_tolerances
from funcnn.gradcheck.engine.functions import check_any_floating, floating_functions, uncompared_parameters
from funcnn.gradcheck.engine.judgement import judge, judge_solved
from funcnn.gradcheck.engine.kinks import Kinks
from funcnn.gradcheck.engine.measurement import with_loss_noise
from funcnn.gradcheck.engine.precision import Comparison, Gradients, double_precision
from funcnn.gradcheck.engine.problem import describe_problem
from funcnn.gradcheck.engine.properties import Property, repeatability, traced_properties
from funcnn.gradcheck.engine.purity import (
    report_changing_gradient,
    report_changing_loss,
    report_kept_values,
    variation,
)
from funcnn.gradcheck.engine.solvers import with_longer_loops
from funcnn.gradcheck.engine.stability import (
    Stability,
    check_stability,
    is_unstable,
)
from funcnn.gradcheck.engine.steps import tapped_steps, verdict_on_properties
from funcnn.gradcheck.engine.surrogates import surrogates_of_steps
from funcnn.gradcheck.engine.verdict import Decision
from funcnn.gradcheck.explanation.diagnosis import diagnose_leaves
from funcnn.gradcheck.explanation.summary import explanation
from funcnn.gradcheck.report import Cost, GradientReport, LeafReport, PropertyReport

leave_out_of_lines(Path(__file__).parent)  # the lines that a report quotes are the caller's


def examine(
    name: str,
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., PyTree],
    arguments: tuple,
    also: Sequence[Property] = (),
    more_properties: Callable[[Comparison], Sequence[PropertyReport]] = lambda comparison: (),
    more_steps: Callable[[Comparison], Sequence[LeafReport]] = lambda comparison: (),
    *,
    stability: Stability = "report",
    no_autodiff: str = "",
) -> GradientReport:
    """Compare a hand-written gradient with autodiff and with the measured slope of the loss.

    Args:
        name: the public function, for error messages.
        loss_fn, grad_fn: functions of ``arguments``, differentiated by the first one.
        arguments: the parameters, and the further arguments of both functions.
        also: further properties to check.
        more_properties: properties of the public check, evaluated in the precision of the comparison.
        more_steps: rows for intermediate gradients, likewise.
        stability: ``"fail"`` if a gradient that loses most of its digits in the caller's dtype is wrong.
        no_autodiff: why autodiff must not be evaluated; empty if it may be.

    Returns:
        The report.

    Raises:
        ValueError: the gradient has another tree structure than the parameters.
    """
    start, calls = time.perf_counter(), Counter[str]()
    params = arguments[0]
    loss_fn, grad_fn, arguments = floating_functions(name, loss_fn, grad_fn, arguments)
    check_any_floating(f"{name}(params)", params, arguments[0])
    checks = _Checks(also, more_properties, more_steps, stability, no_autodiff, name == "check_gradients")
    with highest_matmul_precision(), errors_of_tracing(name):
        report = _examined(Gradients(loss_fn, grad_fn, arguments, calls).evaluated(), checks)
    return report._replace(cost=_cost(start, calls), not_compared=uncompared_parameters(name, params))


class _Checks(NamedTuple):
    """What is checked of a gradient besides its values, as in ``examine``; ``can_tap`` if values may be tapped."""

    also: Sequence[Property]
    more_properties: Callable[[Comparison], Sequence[PropertyReport]]
    more_steps: Callable[[Comparison], Sequence[LeafReport]]
    stability: Stability
    no_autodiff: str
    can_tap: bool


def _examined(own: Gradients, checks: _Checks) -> GradientReport:
    """Return the report of a gradient, which may change from call to call."""
    again = own.gradient(own.params)
    twice = repeatability(own, again)
    if (report := report_changing_loss(own) or report_changing_gradient(own, again)) is not None:
        return report
    try:
        report = _report(own, again, twice, checks)
    except jax.errors.UnexpectedTracerError:
        report = report_kept_values()
    if not report.ok and (changing := report_changing_loss(own)) is not None:
        return changing  # a state that changed the loss only after two calls
    return report


def _report(own: Gradients, again: PyTree, twice: PropertyReport, checks: _Checks) -> GradientReport:
    """Return the report of a gradient that is a function."""
    with double_precision(own, is_pure=bool(twice.ok), no_autodiff=checks.no_autodiff) as comparison:
        comparison = comparison._replace(variation=variation(own, again))
        if _has_unseen_code(comparison):
            comparison = with_loss_noise(comparison)
        judged = judge(own, comparison)
        pairs = judged.pairs
        if not all(row.ok for row in judged.rows) and (longer := with_longer_loops(comparison)) is not None:
            judged = judge_solved(own, judged, longer)
        rows, kinks, decision, rules = judged.rows, judged.kinks, judged.decision, judged.rules
        rows = check_stability(own, comparison, pairs, rows, checks.stability)
        rows = diagnose_leaves(describe_problem(judged.comparison), rows, *_gradients_by_side(judged.pairs, kinks))
        rows = [row._replace(detail=_say_measured(row.detail)) for row in rows] if judged.is_measured else rows
        with comparison.calls():
            more = checks.more_steps(comparison), checks.more_properties(comparison)
        steps = (*(tapped_steps(comparison, own.taps) if own.taps else ()), *more[0])
        rounding = functools.cache(lambda: [4 * tolerance.size for tolerance in noise_tolerances(comparison, pairs)])
        traced = traced_properties(comparison, checks.also, rounding)
        properties = (twice, *traced, *more[1])
    is_right = all(row.ok for row in (*rows, *steps)) and all(entry.ok is not False for entry in properties)
    if not is_right and decision.verdict == "agrees":
        decision = verdict_on_properties(rows, steps, properties)
    elif decision.verdict == "agrees" and any(map(is_unstable, rows)):
        decision = Decision("unstable", "right in float64, but digits are lost in the caller's own dtype", {})
    report = GradientReport(
        ok=is_right and decision.verdict != "undecided",
        leaves=tuple(rows),
        diagnosis="",
        verdict=decision.verdict,
        reason=decision.reason,
        steps=steps,
        properties=properties,
        precision=_describe_precision(comparison),
        no_autodiff=comparison.no_autodiff,
    )
    can_tap = checks.can_tap and comparison.program is not None  # taps are read off the loss's program
    diagnosis = explanation(report, str(kinks) if kinks else "", can_tap=can_tap)
    advice = [rule.advice for rule in rules]
    if checks.can_tap and comparison.by_autodiff is not None and not rules:
        advice = surrogates_of_steps(comparison, rows, [pair.reference for pair in pairs])
    return report._replace(diagnosis="\n".join([diagnosis, *advice]))


def _say_measured(detail: str) -> str:
    """Return a sentence about autodiff's gradient as one about the measured slope."""
    return detail.replace("autodiff's gradient", "the measured gradient").replace("autodiff", "the measured slope")


def _cost(start, calls) -> Cost:
    return Cost(time.perf_counter() - start, calls["gradient"], calls["loss"])


def _describe_precision(comparison) -> str:
    text = comparison.precision + (f": {comparison.reason}" if comparison.reason else "")
    is_rewritten = comparison.narrow and not comparison.coarse
    return f"{text}, the casts to {comparison.narrow} taken out" if is_rewritten else text


def _has_unseen_code(comparison) -> bool:
    """Whether the loss calls what JAX doesn't see into, whose digits aren't known from its program."""
    return comparison.program is None or bool(primitive_names(comparison.program.jaxpr) & OPAQUE)


def _gradients_by_side(pairs, kinks: Kinks | None) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Return the gradient by hand, and what it may mean: autodiff's, and at a kink either side."""
    sides = [kinks.lower, kinks.upper] if kinks else []
    return [pair.by_hand for pair in pairs], [[pair.reference for pair in pairs], *sides]
