"""Functions that aren't functions: a loss or a gradient that changes from call to call."""

import jax
import jax.numpy as jnp
import numpy as np

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn.gradcheck.engine.precision import Gradients
from funcnn.gradcheck.report import GradientReport, PropertyReport

_ADVICE = (
    "Draw what is random outside and pass it as an argument, or pass a key and draw by it: "
    "def loss(params, x, key): mask = jax.random.bernoulli(key, 0.5, x.shape)."
)
_SLIGHT = 0.01


def report_changing_loss(own: Gradients) -> GradientReport | None:
    """Return the report of a loss that has another value at a second call, and ``None`` for a function."""
    first, second = own.value, own.loss(own.params)
    ours, theirs = np.complex128(first), np.complex128(second)
    with np.errstate(all="ignore"):
        is_same = abs(ours - theirs) <= 64 * _epsilon(first) * max(abs(ours), abs(theirs))
    if is_same or first == second or not (np.isfinite(ours) or np.isfinite(theirs)):
        return None
    reason = (
        f"the loss isn't a function of its arguments: it is {ours.real:.9g} at the first call and {theirs.real:.9g} at "
        "the second, with the same arguments; nothing can be said of its gradient"
    )
    return GradientReport(
        False, (), f"{reason[0].upper()}{reason[1:]}. Does it draw random numbers, or keep a state? {_ADVICE}",
        "undecided", reason,
    )  # fmt: skip


def report_changing_gradient(own: Gradients, twice: PropertyReport) -> GradientReport | None:
    """Return the report of a gradient that changes slightly from call to call, and ``None`` otherwise.

    A gradient that changes by much, such as one that adds to what the last call left, is wrong.
    """
    if twice.ok:
        return None
    again = jax.tree.leaves(own.gradient(own.params))
    for first, second in zip(jax.tree.leaves(own.by_hand), again, strict=True):
        first, second = as_float64(first), as_float64(second)
        if first.shape != second.shape or not np.all(distances(first, second) <= _SLIGHT * max_abs(first)):
            return None
    reason = (
        f"the gradient by hand isn't a function of its arguments: a second call differs ({twice.detail}); "
        "nothing can be said of it"
    )
    return GradientReport(
        False, (), f"{reason[0].upper()}{reason[1:]}. Does it draw random numbers, or keep a state? {_ADVICE}",
        "undecided", reason, properties=(twice,),
    )  # fmt: skip


def _epsilon(value) -> float:
    dtype = jnp.result_type(value)
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
