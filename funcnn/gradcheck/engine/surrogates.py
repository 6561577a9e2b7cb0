"""Rules that are meant to differ from their function: straight-through estimators, surrogates, gradient reversal."""

from collections.abc import Sequence

import jax
import numpy as np

from funcnn._numerics.arrays import as_float64, max_abs
from funcnn._numerics.program import primitive_names
from funcnn.gradcheck.engine.precision import Comparison
from funcnn.gradcheck.explanation.numbers import best_factor, format_factor, is_close
from funcnn.gradcheck.report import GradientReport, LeafReport

_STEPS = {"round", "sign", "floor", "ceil"}
SURROGATE = (
    "If the rule is meant to be the derivative of a surrogate, give the surrogate's slope with the function's values: "
    "reference=lambda x: surrogate(x) + jax.lax.stop_gradient(function(x) - surrogate(x))."
)


def suggest_surrogate(report: GradientReport, comparison: Comparison) -> GradientReport:
    """Return the report of a rule that isn't its function's derivative with the way to check what it is meant to be.

    The function's slope is zero everywhere, as that of ``round``, or the rule returns its cotangent, as a
    straight-through estimator does. A slope that is zero everywhere doesn't show which of the two is wrong.
    """
    if report.ok:
        return report
    is_flat = all(_is_flat(leaf) for leaf in _references(report, comparison))
    factor = _factor_of_cotangent(comparison)
    if not is_flat and factor is None:
        return report
    is_plain = factor is None or abs(factor - 1) < 1e-6
    stand_in = "x" if is_plain else f"{format_factor(factor or 1.0, 1e-6)} * x"
    returned = (
        "" if factor is None else f"the rule returns its cotangent{'' if is_plain else f' times {stand_in[:-4]}'}"
    )
    flat = "the function's slope is zero everywhere, as that of round or sign is" if is_flat else ""
    facts = "; ".join(filter(None, (flat, returned)))
    advice = SURROGATE if factor is None else (
        f"If that is meant so, check it with the function's values and this slope: reference=lambda x: {stand_in} + "
        f"jax.lax.stop_gradient(function(x) - {stand_in})."
    )  # fmt: skip
    suggestion = f"{facts[0].upper()}{facts[1:]}. {advice}"
    if is_flat:
        reason = f"{flat}, so nothing can be said of a rule that is meant to differ"
        # What is meant to differ has no mistake to be named.
        leaves = tuple(leaf if leaf.ok else leaf._replace(cause="unknown", detail="") for leaf in report.leaves)
        return report._replace(leaves=leaves, verdict="undecided", reason=reason, diagnosis=suggestion)
    return report._replace(diagnosis=f"{report.diagnosis}\n{suggestion}")


def surrogates_of_steps(comparison: Comparison, rows: Sequence[LeafReport], gradients: Sequence) -> list[str]:
    """Return advice on a surrogate, where autodiff's gradient of a wrong leaf is zero, behind ``round`` or ``sign``."""
    steps = sorted(_STEPS & primitive_names(comparison.program.jaxpr)) if comparison.program else []
    if not steps or not any(not row.ok and _is_flat(leaf) for row, leaf in zip(rows, gradients, strict=True)):
        return []
    return [
        f"Behind {' and '.join(steps)} the slope of the loss is zero. If the gradient by hand is meant to be a "
        "surrogate's, write that in the loss with the function's values: surrogate(x) + jax.lax.stop_gradient(f(x) - "
        "surrogate(x))."
    ]


def _references(report, comparison) -> list:
    if comparison.by_autodiff is None:
        return [leaf.by_autodiff for leaf in report.leaves]
    return jax.tree.leaves(comparison.by_autodiff)


def _is_flat(values) -> bool:
    return bool(np.all(np.abs(np.asarray(values)) <= 1e-9))


def _factor_of_cotangent(comparison) -> float | None:
    """Return the constant c if the only gradient is c times the only cotangent."""
    gradients = [as_float64(leaf) for leaf in jax.tree.leaves(comparison.gradients.by_hand)]
    cotangents = [as_float64(leaf) for leaf in jax.tree.leaves(comparison.gradients.arguments[2])]
    if len(gradients) != 1 or len(cotangents) != 1 or gradients[0].shape != cotangents[0].shape:
        return None
    factor = best_factor(gradients[0], cotangents[0])
    is_multiple = is_close(gradients[0], factor * cotangents[0], 1e-9 * max_abs(gradients[0]))
    return factor if factor and is_multiple and gradients[0].size > 1 else None
