"""What people write in an optimizer's place: a recipe with one thing changed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from funcnn.optimizercheck.recipes import Recipe
from funcnn.optimizercheck.report import OptimizerCause


class Slip(NamedTuple):
    """A cause, the recipe that has it, and a sentence on it."""

    cause: OptimizerCause
    detail: str
    recipe: Recipe


def slips(recipe: Recipe) -> list[Slip]:
    """Everything that differs from a recipe in one line, the commonest first."""
    found: list[Slip] = []
    for kind in (
        _rates,
        _first_moment,
        _second_moment,
        _corrections,
        _epsilons,
        _direction,
        _decay,
        _clipping,
        _state,
        _absent,
    ):
        found += kind(recipe)
    return found


def _rates(recipe) -> Iterator[Slip]:
    yield Slip("sign", "the candidate climbs: its updates have the other sign", recipe._replace(rates=-recipe.rates))
    if not np.ptp(recipe.rates[-1]):
        return
    # Under a drop halfway the optimizer was built anew, by whom it was asked: only a schedule can be off by a step.
    scheduled = (recipe.rates == recipe.rates[-1]).all(axis=1)[:, None]
    first, last = recipe.rates[:, :1], recipe.rates[:, -1:]
    others = {
        # The rate after the last step isn't known, and what it would move isn't compared.
        "after it": np.concatenate([recipe.rates[:, 1:], np.full_like(last, np.nan)], axis=1),
        "before it": np.concatenate([first, recipe.rates[:, :-1]], axis=1),
        "that comes first": np.broadcast_to(first, recipe.rates.shape),
    }
    for step, rates in others.items():
        shifted = recipe._replace(rates=np.where(scheduled, rates, recipe.rates))
        yield Slip("schedule_shifted", f"every step has the schedule's rate of the step {step}", shifted)


def _first_moment(recipe) -> Iterator[Slip]:
    m = "v" if recipe.second == "none" else "m"
    if recipe.first == "sum":
        dampened, words = recipe._replace(first="mean"), "v ← μ v + (1−μ) g, where the reference has v ← μ v + g"
        yield Slip("dampening", words, dampened)
        begun = dampened._replace(begins_whole=True)
        yield Slip("dampening", f"{words}; it begins as the first gradient, all of it, as PyTorch's does", begun)
        yield Slip("coefficient", "v ← g − μ v: μ has the other sign", recipe._replace(b1=-recipe.b1))
        if np.ptp(recipe.rates, axis=1).any() and not recipe.rate_inside:
            words = "the learning rate is inside the velocity, v ← μ v − α g, which differs once it changes"
            yield Slip("rate_inside_velocity", words, recipe._replace(rate_inside=True))
    if recipe.first == "mean":
        words = f"{m} ← β₁ {m} + g, without the factor 1 − β₁"
        cause: OptimizerCause = "dampening" if recipe.second == "none" else "factor_missing"
        yield Slip(cause, words, recipe._replace(first="sum"))
        swapped = recipe._replace(first="exchanged")
        yield Slip("factors_exchanged", f"{m} ← (1−β₁) {m} + β₁ g: the factors are in each other's place", swapped)


def _second_moment(recipe) -> Iterator[Slip]:
    if recipe.second == "none":
        return
    if recipe.first not in ("none", "lion"):
        yield Slip(
            "betas_exchanged", "β₁ and β₂ are in each other's place", recipe._replace(b1=recipe.b2, b2=recipe.b1)
        )
    yield Slip("root_missing", "the direction is divided by v, not by its root", recipe._replace(root=False))
    yield Slip("square_missing", "v gathers |g|, not g²", recipe._replace(power=1))
    both = recipe._replace(power=1, root=False)
    yield Slip("square_missing", "v gathers |g|, and no root is taken", both)
    if recipe.second == "mean":
        yield Slip("factor_missing", "v ← β₂ v + g², without the factor 1 − β₂", recipe._replace(second="leaky sum"))
        yield Slip(
            "accumulation", "v is the sum of all squares, as in Adagrad, not their mean", recipe._replace(second="sum")
        )
        words = "v ← (1−β₂) v + β₂ g²: the factors are in each other's place"
        yield Slip("factors_exchanged", words, recipe._replace(second="exchanged"))
        maximum = recipe._replace(second="maximum", corrected_second=None)
        yield Slip("accumulation", "v is the largest |g| of late, as in Adamax, not a mean of squares", maximum)
    if recipe.start:
        yield Slip("initial_accumulator", f"v begins at 0, not at {recipe.start:g}", recipe._replace(start=0.0))
    largest = "the direction is divided by the root of the largest v so far, as in AMSGrad"
    yield Slip("accumulation", largest, recipe._replace(keeps_largest=True))
    if recipe.first != "none":
        yield Slip("squared_otherwise", "v gathers m², not g²", recipe._replace(squares="moment"))
    yield Slip("squared_otherwise", "v gathers the mean of each leaf's squares", recipe._replace(squares="leaf"))


def _corrections(recipe) -> Iterator[Slip]:
    m, v = recipe.corrected_first, recipe.corrected_second
    if m is None and v is None:
        if recipe.second in ("mean", "maximum"):
            for words, changes in _parts(recipe, 0):
                yield Slip(
                    "bias_correction_missing",
                    f"{words} corrected for bias, which the reference doesn't do",
                    recipe._replace(**changes),
                )
        return
    for words, changes in _parts(recipe, None, only_corrected=True):
        yield Slip("bias_correction_missing", f"{words} not corrected for bias", recipe._replace(**changes))
    for offset, name in ((1, "t+1"), (-1, "t−1")):
        for words, changes in _parts(recipe, offset, only_corrected=True):
            detail = f"{words} corrected by 1 − β^({name}): the count is one step {'ahead' if offset > 0 else 'behind'}"
            yield Slip("bias_correction_shifted", detail, recipe._replace(**changes))
    if m is not None and v is not None:
        yield Slip(
            "bias_correction_shifted", "v is corrected with β₁, as m is", recipe._replace(corrected_by_first=True)
        )
    words = "the count goes on at every leaf, not at every step"
    yield Slip("bias_correction_shifted", words, recipe._replace(counts_leaves=True))
    # One minus β itself, whatever the step.
    yield Slip("state_reset", "the count begins anew at every step", recipe._replace(forgets=("count",)))


def _parts(recipe, offset, only_corrected=False) -> Sequence[tuple[str, dict]]:
    first, second = {"corrected_first": offset}, {"corrected_second": offset}
    has_first = recipe.first == "mean" and (not only_corrected or recipe.corrected_first is not None)
    has_second = recipe.second == "mean" and (not only_corrected or recipe.corrected_second is not None)
    if has_first and has_second:
        return [("m and v are", first | second), ("m is", first), ("v is", second)]
    return ([("m is", first)] if has_first else []) + ([("v is", second)] if has_second else [])


def _epsilons(recipe) -> Iterator[Slip]:
    eps, root = recipe.eps, recipe.eps_root
    if recipe.second in ("none", "maximum") or not (eps or root):
        return
    hat = "v̂" if recipe.corrected_second is not None else "v"
    if eps:
        moved = recipe._replace(eps=0.0, eps_root=eps)
        words = f"ε is inside the root, √({hat} + ε), where the reference has √{hat} + ε"
        yield Slip("epsilon_inside_root", words, moved)
        words = "ε is squared inside the root, √(v̂ + ε²)"
        yield Slip("epsilon_inside_root", words, moved._replace(eps_root=eps**2))
    if root:
        moved = recipe._replace(eps=root, eps_root=0.0)
        words = f"ε is outside the root, √{hat} + ε, where the reference has √({hat} + ε)"
        yield Slip("epsilon_inside_root", words, moved)
    if recipe.corrected_second is not None:
        words = "ε is added before the correction, as in Keras: (√v + ε)/√(1 − β₂ᵗ)"
        yield Slip("epsilon_before_correction", words, recipe._replace(eps_before=True))
        if eps:
            words = "ε is inside the root and before the correction: √(v + ε)/√(1 − β₂ᵗ)"
            yield Slip("epsilon_before_correction", words, recipe._replace(eps_before=True, eps=0.0, eps_root=eps))
    yield Slip("epsilon_size", "there is no ε", recipe._replace(eps=0.0, eps_root=0.0))
    if eps:
        yield Slip("epsilon_floor", f"ε is a floor, max(√{hat}, ε)", recipe._replace(eps_floor=True))


def _direction(recipe) -> Iterator[Slip]:
    if recipe.first not in ("sum", "mean"):
        return
    forms = (
        ("ahead", "damped", "added", "behind")
        if recipe.first == "sum"
        else ("ahead", "same step", "bare gradient", "added", "twice")
    )
    words = {
        "ahead": "g + μ v" if recipe.first == "sum" else "β₁ m/(1 − β₁ᵗ⁺¹) + (1−β₁) g/(1 − β₁ᵗ)",
        "same step": "(β₁ m + (1−β₁) g)/(1 − β₁ᵗ)",
        "bare gradient": "β₁ m/(1 − β₁ᵗ⁺¹) + (1−β₁) g",
        "added": "g + v" if recipe.first == "sum" else "g + β₁ m̂",
        "damped": "(1−μ) g + μ v",
        "behind": "g − μ v",
        "twice": "(β₁ (β₁ m + (1−β₁) g) + (1−β₁) g)/(1 − β₁ᵗ)",
    }
    if recipe.nesterov != "none":
        yield Slip("nesterov", "plain momentum, where the reference has Nesterov's", recipe._replace(nesterov="none"))
    for form in forms:
        if form != recipe.nesterov:
            cause: OptimizerCause = "nesterov" if recipe.nesterov == "none" else "nesterov_form"
            against = (
                "where the reference has plain momentum" if recipe.nesterov == "none" else "another of Nesterov's forms"
            )
            yield Slip(cause, f"the direction is {words[form]}, {against}", recipe._replace(nesterov=form))


def _decay(recipe) -> Iterator[Slip]:
    coupled, decoupled = np.any(recipe.coupled), np.any(recipe.decoupled)
    if not coupled and not decoupled:
        return
    decay = recipe.coupled if coupled else recipe.decoupled
    none = recipe._replace(coupled=0.0, decoupled=0.0)
    yield Slip("decay_missing", "there is no weight decay", none)
    has_moments = recipe.first != "none" or recipe.second != "none"
    if coupled and has_moments:
        words = "weight decay is beside the moments (decoupled), where the reference adds it to the gradient"
        yield Slip("decay_coupling", words, none._replace(decoupled=decay))
    if decoupled:
        words = "weight decay is added to the gradient (coupled), where the reference keeps it beside the moments"
        yield Slip("decay_coupling", words, none._replace(coupled=decay))
    yield Slip("decay_unscaled", "weight decay isn't scaled by the learning rate", none._replace(unscaled=decay))
    field = "coupled" if coupled else "decoupled"
    yield Slip("decay_size", "weight decay has the other sign", recipe._replace(**{field: -decay}))
    for factor, words in ((2.0, "twice"), (0.5, "half")):
        yield Slip("decay_size", f"weight decay is {words} the reference's", recipe._replace(**{field: factor * decay}))
    yield Slip("decay_form", "weight decay takes the parameters' signs", recipe._replace(decays_by_sign=True))
    if np.ndim(decay):
        everywhere = float(np.max(decay))
        yield Slip(
            "decay_masking",
            "every leaf decays, where the reference leaves some out",
            recipe._replace(**{field: everywhere}),
        )
    if recipe.clip != "none" and coupled:
        words = (
            "weight decay is added before the clipping"
            if not recipe.decays_before_clip
            else "weight decay is added after the clipping"
        )
        yield Slip("decay_and_clipping_order", words, recipe._replace(decays_before_clip=not recipe.decays_before_clip))


def _clipping(recipe) -> Iterator[Slip]:
    if recipe.clip == "none":
        return
    yield Slip("clipping_missing", "gradients aren't clipped", recipe._replace(clip="none"))
    words = {
        "value": "each entry is clipped",
        "global norm": "the norm of the whole tree is clipped",
        "leaf norm": "each leaf's own norm is clipped",
        "always": "gradients are always scaled to the bound, also from below",
        "squared norm": "the norm lacks its root",
        "padded norm": "the norm of the whole tree has 10⁻⁶ added, as PyTorch's",
    }
    for kind, said in words.items():
        if kind != recipe.clip:
            yield Slip(
                "clipping_kind", f"{said}, where the reference clips by {recipe.clip}", recipe._replace(clip=kind)
            )
    place = "the update is clipped, not the gradient"
    yield Slip("clipping_place", place, recipe._replace(clips_updates=True))


def _state(recipe) -> Iterator[Slip]:
    has_first, has_second = recipe.first != "none", recipe.second not in ("none",)
    groups: list[tuple[str, tuple[str, ...]]] = []
    if has_first and has_second:
        groups += [
            ("the whole state begins", ("first", "second", "count")),
            ("both moments begin", ("first", "second")),
        ]
    if has_first:
        groups += [(f"{'the velocity' if not has_second else 'm'} begins", ("first",))]
    if has_second:
        groups += [("v begins", ("second",))]
        groups += [("v and the count begin", ("second", "count"))] if not has_first else []
    for words, parts in groups:
        yield Slip(
            "state_reset", f"{words} anew at every step: is the new state returned?", recipe._replace(forgets=parts)
        )
    lates: list[tuple[str, tuple[str, ...]]] = [("m", ("first",))] if has_first and recipe.first != "lion" else []
    lates += [("v", ("second",))] if has_second else []
    lates += [("both moments", ("first", "second"))] if len(lates) == 2 else []
    for words, parts in lates:
        yield Slip(
            "state_late", f"the update is made with {words} from before this gradient", recipe._replace(late=parts)
        )


def _absent(recipe) -> Iterator[Slip]:
    """A moment that isn't there at all."""
    if recipe.first in ("sum", "mean"):
        m = "v" if recipe.second == "none" else "m"
        bare = recipe._replace(first="none", corrected_first=None, nesterov="none")
        yield Slip("coefficient", f"there is no {m}: the gradient itself stands in its place", bare)
    if recipe.after:
        yield Slip("coefficient", "there is no velocity behind the scaling", recipe._replace(after=0.0))
