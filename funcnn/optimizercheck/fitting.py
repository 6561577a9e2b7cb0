"""Another number in one place of a recipe, where some number gives a candidate's updates."""

import math
from collections.abc import Callable, Iterator

import numpy as np

from funcnn.optimizercheck.comparison import agree
from funcnn.optimizercheck.identification import nice
from funcnn.optimizercheck.recipes import Recipe, simulate
from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.sequences import Problem
from funcnn.optimizercheck.slips import Slip

_TOLD_BY = ("random", "zero", "tiny", "small", "huge", "one step, then zero", "vanishing")
_TOLD_IN = 6
_SIZES = (*np.arange(-12.0, 2.0, 0.5),)
_DECAYS = (0.3, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)


def fitted(recipe: Recipe, problem: Problem, updates: np.ndarray, spacing: float) -> Iterator[Slip]:
    """The recipe with another number in one place, where some number gives a candidate's updates."""
    few = problem.chosen([name for name in _TOLD_BY if name in problem.names], _TOLD_IN)
    rows = [problem.names.index(name) for name in few.names]
    wanted = updates[rows, :_TOLD_IN]
    for field, (cause, words) in _NUMBERS.items():
        old = getattr(recipe, field)
        if not _has(recipe, field):
            continue
        start = recipe._replace(rates=recipe.rates[rows, :_TOLD_IN])
        for number in _fits(start, field, few, wanted):
            changed = _with(recipe, field, number)
            if agree(updates, simulate(changed, problem).updates, problem, spacing):
                if field == "rates" and number < 0:
                    yield Slip("sign", f"the candidate's updates are {number:.6g} times the reference's", changed)
                elif field == "rates":
                    yield Slip(cause, f"the learning rate is {number:.6g} times the reference's", changed)
                else:
                    before = float(np.max(np.abs(old), initial=0.0))
                    yield Slip(cause, f"{words} is {number:.6g} where the reference has {before:.6g}", changed)
                break


_NUMBERS: dict[str, tuple[OptimizerCause, str]] = {
    "rates": ("rate_scaled", "the learning rate"),
    "eps": ("epsilon_size", "ε"),
    "eps_root": ("epsilon_size", "ε inside the root"),
    "b1": ("coefficient", "β₁ (or μ)"),
    "b2": ("coefficient", "β₂"),
    "after": ("coefficient", "μ of the velocity"),
    "coupled": ("decay_size", "the weight decay"),
    "decoupled": ("decay_size", "the weight decay"),
    "bound": ("clipping_bound", "the bound of the clipping"),
    "start": ("initial_accumulator", "the second moment's start"),
}


def _has(recipe, field) -> bool:
    """Whether a number plays a part in a recipe."""
    if field == "b1":
        return recipe.first != "none"
    if field == "b2":
        return recipe.second in ("mean", "leaky sum", "maximum") or recipe.first == "lion"
    if field == "start":
        return recipe.second not in ("none", "maximum")
    if field == "eps":
        return recipe.second != "none" and not recipe.eps_root
    return field == "rates" or bool(np.any(getattr(recipe, field)))


def _fits(recipe, field, problem, wanted) -> Iterator[float]:
    """Numbers that bring a recipe near the updates: the best of a grid, then Gauss and Newton in one dimension."""
    scale = np.abs(wanted).max(axis=(1, 2), keepdims=True, initial=0.0, where=np.isfinite(wanted))
    scale = np.where(scale > 0, scale, 1.0)
    is_decay = field in ("b1", "b2", "after")
    places = [math.log1p(-decay) for decay in _DECAYS] if is_decay else list(_SIZES)

    def number(place, sign):
        return -math.expm1(min(place, 0.0)) if is_decay else sign * 10.0 ** min(place, 30.0)

    for sign in (1.0, -1.0) if field in ("rates", "coupled", "decoupled") else (1.0,):

        def residual(place, sign=sign):
            gap = (simulate(_with(recipe, field, number(place, sign)), problem).updates - wanted) / scale
            return np.where(np.isfinite(gap), np.clip(gap, -1e9, 1e9), 0.0).ravel()

        best = min(places, key=lambda place: float((residual(place) ** 2).sum()))
        found = number(_refined(residual, best), sign)
        yield from dict.fromkeys((nice(found, 6), nice(found, 12))) if math.isfinite(found) else ()


def _with(recipe, field, number) -> Recipe:
    """A recipe with another number; the learning rate is multiplied by it."""
    return recipe._replace(**{field: number * recipe.rates if field == "rates" else number})


def _refined(residual: Callable[[float], np.ndarray], place: float) -> float:
    for _ in range(25):
        here = residual(place)
        slope = (residual(place + 1e-6) - here) / 1e-6
        size = float((slope**2).sum())
        if not size or not math.isfinite(size):
            break
        step = float((slope * here).sum()) / size
        place -= max(-1.0, min(1.0, step))
        if abs(step) < 1e-14:
            break
    return place
