"""Losses and gradients that change from call to call, and so aren't functions of their arguments."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn.gradcheck.engine.precision import Gradients
from funcnn.gradcheck.report import GradientReport, PropertyReport

_ADVICE = (
    "Draw what is random outside and pass it as an argument, or pass a key and draw by it: "
    "def loss(params, x, key): mask = jax.random.bernoulli(key, 0.5, x.shape)."
)
_SLIGHT = 0.01


def report_changing_loss(own: Gradients) -> GradientReport | None:
    """Return the report of a loss that has another value at one more call, and ``None`` for a function."""
    first, second = own.value, own.loss(own.params)
    ours, theirs = np.complex128(first), np.complex128(second)
    with np.errstate(all="ignore"):
        is_same = abs(ours - theirs) <= 64 * _epsilon(first) * max(abs(ours), abs(theirs))
    if is_same or first == second or not (np.isfinite(ours) or np.isfinite(theirs)):
        return None
    reason = (
        f"the loss isn't a function of its arguments: it is {ours.real:.9g} at the first call and {theirs.real:.9g} at "
        "another, with the same arguments; nothing can be said of its gradient"
    )
    return GradientReport(
        False, (), f"{reason[0].upper()}{reason[1:]}. Does it draw random numbers, or keep a state? {_ADVICE}",
        "undecided", reason,
    )  # fmt: skip


def variation(own: Gradients, again: PyTree) -> tuple[float, ...]:
    """Return by how much each leaf of the hand-written gradient changed at a second call."""
    pairs = zip(jax.tree.leaves(own.by_hand), jax.tree.leaves(again), strict=True)
    changes = [
        distances(as_float64(first), as_float64(second)) if np.shape(first) == np.shape(second) else np.zeros(0)
        for first, second in pairs
    ]
    return tuple(float(np.max(change, initial=0.0, where=np.isfinite(change))) for change in changes)


def report_changing_gradient(own: Gradients, again: PyTree) -> GradientReport | None:
    """Return the report of a gradient that changes slightly from call to call, and ``None`` otherwise.

    Sums in another order, as on a GPU, change the last digits of a right gradient. A gradient that changes by much,
    such as one that adds to what the last call left, is wrong.
    """
    shares = []
    for first, second in zip(jax.tree.leaves(own.by_hand), jax.tree.leaves(again), strict=True):
        if np.shape(first) != np.shape(second):
            return None
        gap, size = distances(as_float64(first), as_float64(second)), max_abs(as_float64(first))
        worst = float(np.max(np.where(np.isnan(gap), np.inf, gap), initial=0.0))
        shares.append((worst / size if size else worst, 64 * _epsilon(first)))
    if all(share <= allowed for share, allowed in shares) or any(share > _SLIGHT for share, _ in shares):
        return None
    largest = max(share for share, _ in shares)
    reason = (
        f"the gradient by hand isn't a function of its arguments: a second call differs by {largest:.1e} of the "
        "largest entry; nothing can be said of it"
    )
    twice = PropertyReport("the same twice", False, f"{largest:.1e} of the largest entry apart")
    return GradientReport(
        False, (), f"{reason[0].upper()}{reason[1:]}. Does it draw random numbers, or keep a state? {_ADVICE}",
        "undecided", reason, properties=(twice,),
    )  # fmt: skip


def report_kept_values() -> GradientReport:
    """Return the report of functions that store values of one call for another, which JAX can't trace."""
    reason = (
        "a function uses a value that another call stored, in a closure, a global or an object; nothing can be said of "
        "the gradient"
    )
    advice = "Return the value from one function, and pass it to the other, or compute it in both."
    return GradientReport(False, (), f"{reason[0].upper()}{reason[1:]}. {advice}", "undecided", reason)


def _epsilon(value) -> float:
    dtype = jnp.result_type(value)
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
