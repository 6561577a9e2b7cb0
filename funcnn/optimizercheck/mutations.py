"""Mutations of an update rule: the common one-line mistakes in an optimizer."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from funcnn.optimizercheck.report import OptimizerCause
from funcnn.optimizercheck.update_rules import UpdateRule


class Mutation(NamedTuple):
    """A cause, a sentence that describes it, and the update rule with this change."""

    cause: OptimizerCause
    detail: str
    rule: UpdateRule


def mutations(rule: UpdateRule) -> list[Mutation]:
    """Return the rules that differ from a rule in one line, the most common ones first."""
    found: list[Mutation] = []
    for generator in (
        _learning_rate,
        _first_moment,
        _second_moment,
        _corrections,
        _epsilons,
        _direction,
        _weight_decay,
        _clipping,
        _state,
        _missing_moments,
    ):
        found += generator(rule)
    return found


def _learning_rate(rule) -> Iterator[Mutation]:
    yield Mutation("sign", "the candidate ascends: its updates have the other sign", rule._replace(rates=-rule.rates))
    if not np.ptp(rule.rates[-1]):
        return
    # For a rate that is reduced halfway the check builds the optimizer again: only a schedule can be shifted by a step.
    scheduled = (rule.rates == rule.rates[-1]).all(axis=1)[:, None]
    first, last = rule.rates[:, :1], rule.rates[:, -1:]
    others = {
        # The rate after the last step is unknown, and the updates that depend on it aren't compared.
        "every step has the schedule's rate of the next step": np.concatenate(
            [rule.rates[:, 1:], np.full_like(last, np.nan)], axis=1
        ),
        "every step has the schedule's rate of the step before": np.concatenate([first, rule.rates[:, :-1]], axis=1),
        "every step has the schedule's rate of the first step": np.broadcast_to(first, rule.rates.shape),
    }
    for detail, rates in others.items():
        shifted = rule._replace(rates=np.where(scheduled, rates, rule.rates))
        yield Mutation("schedule_shifted", detail, shifted)


def _first_moment(rule) -> Iterator[Mutation]:
    m = "v" if rule.second == "none" else "m"
    if rule.first == "sum":
        dampened, detail = rule._replace(first="mean"), "v ← μ v + (1−μ) g, where the reference has v ← μ v + g"
        yield Mutation("dampening", detail, dampened)
        undampened_start = dampened._replace(start_with_gradient=True)
        detail = f"{detail}; the first step is not dampened, as in PyTorch"
        yield Mutation("dampening", detail, undampened_start)
        yield Mutation("coefficient", "v ← g − μ v: μ has the other sign", rule._replace(b1=-rule.b1))
        if np.ptp(rule.rates, axis=1).any() and not rule.rate_inside:
            detail = "the learning rate is inside the velocity, v ← μ v − α g, which differs when it changes"
            yield Mutation("rate_inside_velocity", detail, rule._replace(rate_inside=True))
    if rule.first == "mean":
        detail = f"{m} ← β₁ {m} + g, without the factor 1 − β₁"
        cause: OptimizerCause = "dampening" if rule.second == "none" else "factor_missing"
        yield Mutation(cause, detail, rule._replace(first="sum"))
        exchanged = rule._replace(first="exchanged")
        yield Mutation("factors_exchanged", f"{m} ← (1−β₁) {m} + β₁ g: the factors are exchanged", exchanged)


def _second_moment(rule) -> Iterator[Mutation]:
    if rule.second == "none":
        return
    if rule.first not in ("none", "lion"):
        yield Mutation("betas_exchanged", "β₁ and β₂ are exchanged", rule._replace(b1=rule.b2, b2=rule.b1))
    yield Mutation("root_missing", "the direction is divided by v, not by its root", rule._replace(root=False))
    yield Mutation("square_missing", "v accumulates |g|, not g²", rule._replace(power=1))
    both = rule._replace(power=1, root=False)
    yield Mutation("square_missing", "v accumulates |g|, and no root is taken", both)
    if rule.second == "mean":
        yield Mutation("factor_missing", "v ← β₂ v + g², without the factor 1 − β₂", rule._replace(second="leaky sum"))
        detail = "v is the sum of all squares, as in Adagrad, not their mean"
        yield Mutation("accumulation", detail, rule._replace(second="sum"))
        detail = "v ← (1−β₂) v + β₂ g²: the factors are exchanged"
        yield Mutation("factors_exchanged", detail, rule._replace(second="exchanged"))
        maximum = rule._replace(second="maximum", second_correction=None)
        yield Mutation("accumulation", "v is the largest recent |g|, as in Adamax, not a mean of squares", maximum)
    if rule.initial_second:
        detail = f"v starts at 0, not at {rule.initial_second:g}"
        yield Mutation("initial_accumulator", detail, rule._replace(initial_second=0.0))
    detail = "the direction is divided by the root of the largest v so far, as in AMSGrad"
    yield Mutation("accumulation", detail, rule._replace(largest_second=True))
    if rule.first != "none":
        yield Mutation("squared_otherwise", "v accumulates m², not g²", rule._replace(squared="moment"))
    detail = "v accumulates the mean of each leaf's squares"
    yield Mutation("squared_otherwise", detail, rule._replace(squared="leaf"))


def _corrections(rule) -> Iterator[Mutation]:
    m, v = rule.first_correction, rule.second_correction
    if m is None and v is None:
        if rule.second in ("mean", "maximum"):
            for subject, changes in _correction_changes(rule, 0):
                detail = f"{subject} corrected for bias, where the reference has no correction"
                yield Mutation("bias_correction_missing", detail, rule._replace(**changes))
        return
    for subject, changes in _correction_changes(rule, None, only_corrected=True):
        yield Mutation("bias_correction_missing", f"{subject} not corrected for bias", rule._replace(**changes))
    for offset, exponent in ((1, "t+1"), (-1, "t−1")):
        for subject, changes in _correction_changes(rule, offset, only_corrected=True):
            shift = "ahead" if offset > 0 else "behind"
            detail = f"{subject} corrected by 1 − β^({exponent}): the count is one step {shift}"
            yield Mutation("bias_correction_shifted", detail, rule._replace(**changes))
    if m is not None and v is not None:
        detail = "v is corrected with β₁, as m is"
        yield Mutation("bias_correction_shifted", detail, rule._replace(correct_with_b1=True))
    detail = "the count increases at every leaf, not at every step"
    yield Mutation("bias_correction_shifted", detail, rule._replace(count_leaves=True))
    # The correction is 1 − β at every step.
    yield Mutation("state_reset", "the count is reset at every step", rule._replace(resets=("count",)))


def _correction_changes(rule, offset, only_corrected=False) -> Sequence[tuple[str, dict]]:
    first, second = {"first_correction": offset}, {"second_correction": offset}
    has_first = rule.first == "mean" and (not only_corrected or rule.first_correction is not None)
    has_second = rule.second == "mean" and (not only_corrected or rule.second_correction is not None)
    if has_first and has_second:
        return [("m and v are", first | second), ("m is", first), ("v is", second)]
    return ([("m is", first)] if has_first else []) + ([("v is", second)] if has_second else [])


def _epsilons(rule) -> Iterator[Mutation]:
    eps, root = rule.eps, rule.eps_root
    if rule.second in ("none", "maximum") or not (eps or root):
        return
    v = "v̂" if rule.second_correction is not None else "v"
    if eps:
        moved = rule._replace(eps=0.0, eps_root=eps)
        detail = f"ε is inside the root, √({v} + ε), where the reference has √{v} + ε"
        yield Mutation("epsilon_inside_root", detail, moved)
        detail = "ε is squared inside the root, √(v̂ + ε²)"
        yield Mutation("epsilon_inside_root", detail, moved._replace(eps_root=eps**2))
    if root:
        moved = rule._replace(eps=root, eps_root=0.0)
        detail = f"ε is outside the root, √{v} + ε, where the reference has √({v} + ε)"
        yield Mutation("epsilon_inside_root", detail, moved)
    if rule.second_correction is not None:
        detail = "ε is added before the correction, as in Keras: (√v + ε)/√(1 − β₂ᵗ)"
        yield Mutation("epsilon_before_correction", detail, rule._replace(eps_before_correction=True))
        if eps:
            detail = "ε is inside the root and before the correction: √(v + ε)/√(1 − β₂ᵗ)"
            moved = rule._replace(eps_before_correction=True, eps=0.0, eps_root=eps)
            yield Mutation("epsilon_before_correction", detail, moved)
    yield Mutation("epsilon_size", "there is no ε", rule._replace(eps=0.0, eps_root=0.0))
    if eps:
        yield Mutation("epsilon_floor", f"ε is a lower bound, max(√{v}, ε)", rule._replace(eps_floor=True))


def _direction(rule) -> Iterator[Mutation]:
    if rule.first not in ("sum", "mean"):
        return
    forms = (
        ("ahead", "damped", "added", "behind")
        if rule.first == "sum"
        else ("ahead", "same step", "bare gradient", "added", "twice")
    )
    formulas = {
        "ahead": "g + μ v" if rule.first == "sum" else "β₁ m/(1 − β₁ᵗ⁺¹) + (1−β₁) g/(1 − β₁ᵗ)",
        "same step": "(β₁ m + (1−β₁) g)/(1 − β₁ᵗ)",
        "bare gradient": "β₁ m/(1 − β₁ᵗ⁺¹) + (1−β₁) g",
        "added": "g + v" if rule.first == "sum" else "g + β₁ m̂",
        "damped": "(1−μ) g + μ v",
        "behind": "g − μ v",
        "twice": "(β₁ (β₁ m + (1−β₁) g) + (1−β₁) g)/(1 − β₁ᵗ)",
    }
    if rule.nesterov != "none":
        detail = "plain momentum, where the reference has Nesterov's"
        yield Mutation("nesterov", detail, rule._replace(nesterov="none"))
    cause: OptimizerCause = "nesterov" if rule.nesterov == "none" else "nesterov_form"
    contrast = "where the reference has plain momentum" if rule.nesterov == "none" else "another form of Nesterov's"
    for form in forms:
        if form != rule.nesterov:
            detail = f"the direction is {formulas[form]}, {contrast}"
            yield Mutation(cause, detail, rule._replace(nesterov=form))


def _weight_decay(rule) -> Iterator[Mutation]:
    coupled, decoupled = np.any(rule.coupled), np.any(rule.decoupled)
    if not coupled and not decoupled:
        return
    decay = rule.coupled if coupled else rule.decoupled
    none = rule._replace(coupled=0.0, decoupled=0.0)
    yield Mutation("decay_missing", "there is no weight decay", none)
    has_moments = rule.first != "none" or rule.second != "none"
    if coupled and has_moments:
        detail = "weight decay is decoupled, where the reference adds it to the gradient"
        yield Mutation("decay_coupling", detail, none._replace(decoupled=decay))
    if decoupled:
        detail = "weight decay is added to the gradient (coupled), where the reference has decoupled weight decay"
        yield Mutation("decay_coupling", detail, none._replace(coupled=decay))
    yield Mutation("decay_unscaled", "weight decay isn't scaled by the learning rate", none._replace(unscaled=decay))
    field = "coupled" if coupled else "decoupled"
    yield Mutation("decay_size", "weight decay has the other sign", rule._replace(**{field: -decay}))
    for factor, word in ((2.0, "twice"), (0.5, "half")):
        yield Mutation(
            "decay_size", f"weight decay is {word} the reference's", rule._replace(**{field: factor * decay})
        )
    detail = "weight decay is proportional to the signs of the parameters"
    yield Mutation("decay_form", detail, rule._replace(sign_decay=True))
    if np.ndim(decay):
        detail = "weight decay applies to every leaf, where the reference excludes some"
        yield Mutation("decay_masking", detail, rule._replace(**{field: float(np.max(decay))}))
    if rule.clip != "none" and coupled:
        place = "after" if rule.decay_before_clip else "before"
        swapped = rule._replace(decay_before_clip=not rule.decay_before_clip)
        yield Mutation("decay_and_clipping_order", f"weight decay is added {place} the clipping", swapped)


def _clipping(rule) -> Iterator[Mutation]:
    if rule.clip == "none":
        return
    yield Mutation("clipping_missing", "gradients aren't clipped", rule._replace(clip="none"))
    details = {
        "value": "each entry is clipped",
        "global norm": "the norm of the whole tree is clipped",
        "leaf norm": "the norm of each leaf is clipped",
        "always": "gradients are scaled to the bound even if their norm is smaller",
        "squared norm": "the root of the norm is missing",
        "padded norm": "10⁻⁶ is added to the norm of the whole tree, as in PyTorch",
    }
    for kind, detail in details.items():
        if kind != rule.clip:
            detail = f"{detail}, where the reference clips by {rule.clip}"
            yield Mutation("clipping_kind", detail, rule._replace(clip=kind))
    detail = "the update is clipped, not the gradient"
    yield Mutation("clipping_place", detail, rule._replace(clip_update=True))


def _state(rule) -> Iterator[Mutation]:
    has_first, has_second = rule.first != "none", rule.second != "none"
    resets: list[tuple[str, tuple[str, ...]]] = []
    if has_first and has_second:
        resets += [("the whole state is", ("first", "second", "count")), ("both moments are", ("first", "second"))]
    if has_first:
        resets += [(f"{'the velocity' if not has_second else 'm'} is", ("first",))]
    if has_second:
        resets += [("v is", ("second",))]
        resets += [("v and the count are", ("second", "count"))] if not has_first else []
    for subject, parts in resets:
        detail = f"{subject} reset at every step. Check that update returns the new state"
        yield Mutation("state_reset", detail, rule._replace(resets=parts))
    stale: list[tuple[str, tuple[str, ...]]] = [("m", ("first",))] if has_first and rule.first != "lion" else []
    stale += [("v", ("second",))] if has_second else []
    stale += [("both moments", ("first", "second"))] if len(stale) == 2 else []
    for words, parts in stale:
        detail = f"the update uses {words} from before this gradient"
        yield Mutation("state_late", detail, rule._replace(stale=parts))


def _missing_moments(rule) -> Iterator[Mutation]:
    if rule.first in ("sum", "mean"):
        m = "v" if rule.second == "none" else "m"
        bare = rule._replace(first="none", first_correction=None, nesterov="none")
        yield Mutation("coefficient", f"there is no {m}: the gradient is used instead", bare)
    if rule.velocity_decay:
        detail = "there is no velocity after the scaling"
        yield Mutation("coefficient", detail, rule._replace(velocity_decay=0.0))
