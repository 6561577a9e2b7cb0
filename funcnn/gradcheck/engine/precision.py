"""The precision of a comparison: float64 if the functions allow it."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._checks import is_concrete
from funcnn._numerics.precision import allow_promotion, copy_arrays, enable_x64, widen
from funcnn._numerics.program import RANDOM, Program, primitive_names, trace
from funcnn._numerics.rounding import rounding_dtypes


class Gradients(NamedTuple):
    """A loss and its two gradients at one point, as functions of the parameters alone and as values.

    Fields:
        loss_fn, grad_fn: the caller's functions.
        loss, gradient: the same as functions of the parameters.
        arguments: the parameters and the further arguments.
        value, by_hand, by_autodiff: the loss and both gradients.
        calls: the number of calls of either function by kind, ``"gradient"`` and ``"loss"``.
    """

    loss_fn: Callable[..., Any]
    grad_fn: Callable[..., Any]
    loss: Callable[[PyTree], Any]
    gradient: Callable[[PyTree], PyTree]
    arguments: tuple
    value: Any
    by_hand: PyTree
    by_autodiff: PyTree
    calls: Counter

    @property
    def params(self) -> PyTree:
        return self.arguments[0]


class Comparison(NamedTuple):
    """What the values are judged by: both gradients in the widest precision, their programs, and ε.

    Fields:
        gradients: the loss and its gradients.
        program, gradient_program: the programs of the loss and of the hand-written gradient; ``None`` for one that
            can't be traced, such as a function with ``if x > 0``.
        spacing: ε of the coarsest numbers to which either rounds.
        precision: the dtype's name.
        reason: why the precision isn't float64; empty if it is.
    """

    gradients: Gradients
    program: Program | None
    gradient_program: Program | None
    spacing: float
    precision: str
    reason: str


def evaluate(loss_fn: Callable[..., Any], grad_fn: Callable[..., Any], arguments: tuple, calls: Counter) -> Gradients:
    """Evaluate both gradients at ``arguments``. Each function gets copies, because it may donate or change them."""

    def loss(params):
        return loss_fn(*copy_arrays((params, *arguments[1:])))

    def counted_loss(params):
        calls["loss"] += is_concrete(*jax.tree.leaves(params))
        return loss_fn(params, *copy_arrays(arguments[1:]))

    def gradient(params):
        calls["gradient"] += is_concrete(*jax.tree.leaves(params))
        return grad_fn(*copy_arrays((params, *arguments[1:])))

    calls["gradient"] += 1
    value, by_autodiff = jax.value_and_grad(loss)(arguments[0])
    by_hand = gradient(arguments[0])
    return Gradients(loss_fn, grad_fn, counted_loss, gradient, arguments, value, by_hand, by_autodiff, calls)


@contextlib.contextmanager
def double_precision(
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., Any],
    own: Gradients,
    min_spacing: float = 0.0,
    *,
    traceable: bool = True,
) -> Iterator[Comparison]:
    """Enable float64 and yield the gradients evaluated in it.

    If the functions reject float64 or compute something else in it, the caller's own precision is used.

    Args:
        loss_fn, grad_fn: the loss and the hand-written gradient.
        own: both gradients in the caller's own precision.
        min_spacing: a lower bound of the ε of the comparison.
        traceable: whether the gradient may be traced. One that stores values between its calls would store tracers.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(allow_promotion())
        stack.enter_context(enable_x64(True))
        wide, reason = _evaluate_in_float64(loss_fn, grad_fn, own)
        if wide is not None:
            yield _make_comparison(own, wide, "float64", "", min_spacing, traceable)
            return
    with allow_promotion():
        dtypes = {str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(own.params)}
        yield _make_comparison(own, own, " and ".join(sorted(dtypes)), reason, min_spacing, traceable)


def _evaluate_in_float64(loss_fn, grad_fn, own):
    wider = widen(own.arguments)
    if jax.tree.map(_dtype, wider) == jax.tree.map(_dtype, own.arguments):
        return own, ""
    try:
        wide = evaluate(loss_fn, grad_fn, wider, own.calls)
    except Exception as error:  # whatever the caller's functions raise
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
        return None, f"the functions don't take float64 ({reason})"
    ours, theirs = np.complex128(wide.value), np.complex128(own.value)
    dtype = jnp.result_type(own.value)
    with np.errstate(all="ignore"):
        gap, size = np.abs(ours - theirs), np.maximum(np.abs(ours), np.abs(theirs))
    apart = gap > float(jnp.finfo(dtype).eps) ** 0.5 * size
    program = trace(wide.loss, wide.params) if apart else None
    if program is not None and primitive_names(program.jaxpr) & RANDOM:
        losses = f"where the loss is {ours.real:.6g} and not {theirs.real:.6g}"
        return None, f"the random numbers are others in float64, {losses}"
    return wide, ""


def _dtype(leaf):
    return getattr(leaf, "dtype", None)


def _make_comparison(own, gradients, precision, reason, min_spacing, traceable):
    program = trace(gradients.loss, gradients.params)
    gradient_program = trace(gradients.gradient, gradients.params) if traceable else None
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(gradients.params)}
    own_spacing = max((_spacing(jnp.result_type(leaf)) for leaf in jax.tree.leaves(own.params)), default=0.0)
    if program is not None:
        dtypes |= rounding_dtypes(program.jaxpr)
    if gradient_program is not None:
        # A gradient that rounds to fewer digits than both the loss and the caller's dtype doesn't set the precision.
        least = max([own_spacing, *map(_spacing, dtypes)])
        dtypes |= {dtype for dtype in rounding_dtypes(gradient_program.jaxpr) if _spacing(dtype) <= least}
    elif own_spacing >= _spacing(jnp.float32) and precision == "float64" and not _keeps_digits(gradients):
        dtypes.add(jnp.dtype(jnp.float32))
    spacing = max([min_spacing, *map(_spacing, dtypes)])
    return Comparison(gradients, program, gradient_program, spacing, precision, reason)


def _spacing(dtype) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _keeps_digits(gradients) -> bool:
    """Whether a gradient that can't be traced has float64's digits: it follows changes far below those of float32."""

    def at(distance):
        moved = jax.tree.map(lambda leaf: leaf * (1 - distance), gradients.params)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients.gradient(moved))])

    try:
        start, once, twice = at(0.0), at(1e-10), at(2e-10)
        return bool(np.linalg.norm(twice - 2 * once + start) <= 0.1 * np.linalg.norm(once - start) > 0)
    except Exception:  # whatever the caller's function raises elsewhere
        return False
