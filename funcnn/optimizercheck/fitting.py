"""Estimation of one coefficient of an update rule from a candidate's updates."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from funcnn.optimizercheck.comparison import is_close
from funcnn.optimizercheck.identification import round_significant
from funcnn.optimizercheck.mutations import Mutation
from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.sequences import Problem
from funcnn.optimizercheck.update_rules import UpdateRule, simulate

_FITTING_SEQUENCES = ("random", "zero", "tiny", "small", "huge", "one step, then zero", "vanishing")
_FITTING_STEPS = 6
_GRID_OF_EXPONENTS = (*np.arange(-12.0, 2.0, 0.5),)
_GRID_OF_DECAYS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)


class _Coefficient(NamedTuple):
    """A coefficient of an update rule: its field, the cause and the text of a change, and the rule to start from."""

    field: str
    cause: OptimizerCause
    text: str
    rule: UpdateRule


def fit_coefficients(rule: UpdateRule, problem: Problem, updates: np.ndarray, spacing: float) -> Iterator[Mutation]:
    """Yield the rule with one other coefficient, wherever some value of it reproduces a candidate's updates."""
    few = problem.select([name for name in _FITTING_SEQUENCES if name in problem.names], _FITTING_STEPS)
    rows = [problem.names.index(name) for name in few.names]
    expected = updates[rows, :_FITTING_STEPS]
    for field, cause, text, start in _coefficients(rule):
        for value in _fitted_values(start._replace(rates=rule.rates[rows, :_FITTING_STEPS]), field, few, expected):
            changed = _replace_coefficient(start, field, value)
            if is_close(updates, simulate(changed, problem).updates, problem, spacing):
                yield Mutation("sign" if field == "rates" and value < 0 else cause, text.format(value), changed)
                break


def _coefficients(rule) -> Iterator[_Coefficient]:
    """Yield every coefficient that has an effect in the rule, and those of lines that the rule lacks."""
    yield _Coefficient("rates", "rate_scaled", "the learning rate is {:.6g} times the reference's", rule)
    if rule.second != "none":
        field = "eps_root" if rule.eps_root else "eps"
        inside = " inside the root" if rule.eps_root else ""
        text = f"ε{inside} is {{:.6g}} where the reference has {getattr(rule, field):g}"
        yield _Coefficient(field, "epsilon_size", text, rule)
    has_b2 = rule.second in ("mean", "leaky sum", "maximum") or rule.first == "lion"
    decays = {
        "b1": ("β₁ (or μ)", rule.first != "none"),
        "b2": ("β₂", has_b2),
        "velocity_decay": ("μ", rule.velocity_decay),
    }
    for field, (name, has_effect) in decays.items():
        if has_effect:
            text = f"{name} is {{:.6g}} where the reference has {getattr(rule, field):g}"
            yield _Coefficient(field, "coefficient", text, rule)
    if rule.second not in ("none", "maximum"):
        text = f"the second moment starts at {{:.6g}} where the reference's starts at {rule.initial_second:g}"
        yield _Coefficient("initial_second", "initial_accumulator", text, rule)
    if rule.second == "sum":
        text = "v is a mean of squares with β₂ = {:.6g}, as in RMSprop, not their sum"
        for initial in dict.fromkeys((rule.initial_second, 0.0)):
            yield _Coefficient("b2", "accumulation", text, rule._replace(second="mean", initial_second=initial))
        text = "the sum of squares decays by β₂ = {:.6g} at every step"
        yield _Coefficient("b2", "accumulation", text, rule._replace(second="leaky sum"))
    yield from _weight_decays(rule)
    yield from _clipping_bounds(rule)


def _weight_decays(rule) -> Iterator[_Coefficient]:
    for field in ("coupled", "decoupled"):
        decay = getattr(rule, field)
        if np.any(decay):
            text = f"the weight decay is {{:.6g}} where the reference has {np.max(np.abs(decay)):g}"
            yield _Coefficient(field, "decay_size", text, rule)
    if not np.any(rule.coupled) and not np.any(rule.decoupled):
        text = "a weight decay of {:.6g} is added to the gradient, where the reference has none"
        yield _Coefficient("coupled", "decay_added", text, rule)
        if rule.first != "none" or rule.second != "none":
            text = "a decoupled weight decay of {:.6g} is added to the update, where the reference has none"
            yield _Coefficient("decoupled", "decay_added", text, rule)


def _clipping_bounds(rule) -> Iterator[_Coefficient]:
    if rule.clip != "none":
        text = f"gradients are clipped at {{:.6g}} where the reference clips at {rule.bound:g}"
        yield _Coefficient("bound", "clipping_bound", text, rule)
        return
    for kind in ("global norm", "value", "leaf norm"):
        text = f"gradients are clipped by {kind} at {{:.6g}}, where the reference doesn't clip"
        yield _Coefficient("bound", "clipping_added", text, rule._replace(clip=kind))


def _fitted_values(rule, field, problem, expected) -> Iterator[float]:
    """Yield values of a coefficient that bring a rule near the updates.

    The best value of a grid is refined by the Gauss–Newton method in one dimension, and rounded to 6 and to 12 digits.
    """
    scale = np.abs(expected).max(axis=(1, 2), keepdims=True, initial=0.0, where=np.isfinite(expected))
    scale = np.where(scale > 0, scale, 1.0)
    is_decay = field in ("b1", "b2", "velocity_decay")
    grid = [math.log1p(-decay) for decay in _GRID_OF_DECAYS] if is_decay else list(_GRID_OF_EXPONENTS)

    def value(position, sign):
        return -math.expm1(min(position, 0.0)) if is_decay else sign * 10.0 ** min(position, 30.0)

    for sign in (1.0, -1.0) if field in ("rates", "coupled", "decoupled") else (1.0,):

        def residual(position, sign=sign):
            changed = _replace_coefficient(rule, field, value(position, sign))
            difference = (simulate(changed, problem).updates - expected) / scale
            return np.where(np.isfinite(difference), np.clip(difference, -1e9, 1e9), 0.0).ravel()

        best = min(grid, key=lambda position: float((residual(position) ** 2).sum()))
        found = value(_gauss_newton(residual, best), sign)
        if math.isfinite(found):
            yield from dict.fromkeys((round_significant(found, 6), round_significant(found, 12)))


def _replace_coefficient(rule, field, value) -> UpdateRule:
    """Return a rule with another coefficient; the learning rate is multiplied by it."""
    return rule._replace(**{field: value * rule.rates if field == "rates" else value})


def _gauss_newton(residual: Callable[[float], np.ndarray], position: float) -> float:
    """Minimise the sum of squared residuals over one number."""
    first = float((residual(position) ** 2).sum())
    for iteration in range(25):
        here = residual(position)
        if iteration == 8 and not float((here**2).sum()) < 1e-6 * first:
            break  # no value reproduces the updates
        slope = (residual(position + 1e-6) - here) / 1e-6
        size = float((slope**2).sum())
        if not size or not math.isfinite(size):
            break
        step = float((slope * here).sum()) / size
        position -= max(-1.0, min(1.0, step))
        if abs(step) < 1e-14:
            break
    return position
