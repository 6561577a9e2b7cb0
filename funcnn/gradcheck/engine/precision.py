"""In which precision two gradients are compared: float64 where the functions allow it."""

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


class Evaluated(NamedTuple):
    """A loss and its two gradients at one point, as functions of the parameters alone and as values.

    ``calls`` counts the calls of either function by kind, ``"gradient"`` and ``"loss"``.
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


class Judged(NamedTuple):
    """What the values are judged by: both gradients in the widest precision, their programs, and ε.

    Fields:
        evaluated: the loss and its gradients.
        program: the loss's program; ``gradient_program``: the hand-written gradient's; ``None`` where either can't be
            traced, as a function that asks ``if x > 0`` can't.
        spacing: ε of the coarsest numbers that either rounds to.
        precision: the dtype's name; ``reason`` says why it isn't float64 where it isn't.
    """

    evaluated: Evaluated
    program: Program | None
    gradient_program: Program | None
    spacing: float
    precision: str
    reason: str


def evaluate(loss_fn: Callable[..., Any], grad_fn: Callable[..., Any], arguments: tuple, calls: Counter) -> Evaluated:
    """Both gradients at ``arguments``; each function gets copies, for it may donate or change what it gets."""

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
    return Evaluated(loss_fn, grad_fn, counted_loss, gradient, arguments, value, by_hand, by_autodiff, calls)


@contextlib.contextmanager
def judging(
    loss_fn: Callable[..., Any],
    grad_fn: Callable[..., Any],
    own: Evaluated,
    settled: float = 0.0,
    *,
    traceable: bool = True,
) -> Iterator[Judged]:
    """Everything inside runs in float64; or as the caller has it, where the functions aren't the same there.

    ``settled`` is the least ε to judge by. Where the gradient isn't ``traceable`` it gets no tracers: one that keeps
    something between its calls would keep those.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(allow_promotion())
        stack.enter_context(enable_x64(True))
        wide, reason = _in_double_precision(loss_fn, grad_fn, own)
        if wide is not None:
            yield _judged(own, wide, "float64", "", settled, traceable)
            return
    with allow_promotion():
        dtypes = {str(jnp.result_type(leaf)) for leaf in jax.tree.leaves(own.params)}
        yield _judged(own, own, " and ".join(sorted(dtypes)), reason, settled, traceable)


def _in_double_precision(loss_fn, grad_fn, own):
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


def _judged(own, evaluated, precision, reason, settled, traceable):
    program = trace(evaluated.loss, evaluated.params)
    gradient_program = trace(evaluated.gradient, evaluated.params) if traceable else None
    dtypes = {jnp.result_type(leaf) for leaf in jax.tree.leaves(evaluated.params)}
    own_spacing = max((_spacing(jnp.result_type(leaf)) for leaf in jax.tree.leaves(own.params)), default=0.0)
    if program is not None:
        dtypes |= rounding_dtypes(program.jaxpr)
    if gradient_program is not None:
        # Where the loss keeps more digits, a gradient that rounds to fewer than the caller's own isn't judged by them.
        least = max([own_spacing, *map(_spacing, dtypes)])
        dtypes |= {dtype for dtype in rounding_dtypes(gradient_program.jaxpr) if _spacing(dtype) <= least}
    elif own_spacing >= _spacing(jnp.float32) and precision == "float64" and not _keeps_digits(evaluated):
        dtypes.add(jnp.dtype(jnp.float32))
    spacing = max([settled, *map(_spacing, dtypes)])
    return Judged(evaluated, program, gradient_program, spacing, precision, reason)


def _spacing(dtype) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0


def _keeps_digits(evaluated) -> bool:
    """Whether a gradient that can't be traced follows changes far below float32's digits, so has float64's."""

    def at(distance):
        moved = jax.tree.map(lambda leaf: leaf * (1 - distance), evaluated.params)
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(evaluated.gradient(moved))])

    try:
        start, once, twice = at(0.0), at(1e-10), at(2e-10)
        return bool(np.linalg.norm(twice - 2 * once + start) <= 0.1 * np.linalg.norm(once - start) > 0)
    except Exception:  # whatever the caller's function raises elsewhere
        return False
