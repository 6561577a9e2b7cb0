"""What else a gradient owes: the same answer twice, under jit and vmap, and a right second derivative."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.program import default_rule
from funcnn.gradcheck.engine.precision import Evaluated, Judged
from funcnn.gradcheck.report import PropertyReport

Property: TypeAlias = Literal["jit", "vmap", "second_order"]
"""What ``check_gradients(also=…)`` can be asked beside the values."""


def check_also(name: str, also: Sequence[str]) -> None:
    """Refuse words that aren't properties."""
    known = get_args(Property)
    if not isinstance(also, Sequence) or isinstance(also, str) or any(word not in known for word in also):
        raise ValueError(f"{name}(also): expected some of {known}, got {also!r}. Pass a tuple, also=('jit',).")


def repeated(own: Evaluated) -> PropertyReport:
    """Whether the gradient is the same twice, as the caller's function gives it."""
    spacings = [float(jnp.finfo(jnp.result_type(leaf)).eps) for leaf in jax.tree.leaves(own.params)]
    return agreement("the same twice", lambda: own.gradient(own.params), own.by_hand, max(spacings, default=0.0))


def asked_properties(
    judged: Judged, also: Sequence[Property], rounding: Callable[[], list[float]]
) -> tuple[PropertyReport, ...]:
    """Whether the gradient is the same when it is traced, and what else was asked for.

    ``rounding`` is how much of each leaf is rounding; it is asked only where a leaf differs.
    """
    evaluated, spacing = judged.evaluated, judged.spacing
    asked = []
    traced = judged.gradient_program
    if traced is not None and "jit" not in also:
        as_traced = partial(traced.evaluate, rule=default_rule)
        asked.append(
            agreement(
                "the same traced, as under jit",
                lambda: (jax.jit(as_traced) if traced.is_one_call else as_traced)(evaluated.params),
                evaluated.by_hand,
                spacing,
                rounding,
            )
        )
    if "jit" in also:
        asked.append(
            agreement(
                "under jit",
                lambda: jax.jit(evaluated.gradient)(evaluated.params),
                evaluated.by_hand,
                spacing,
                rounding,
            )
        )
    if "vmap" in also:
        asked.append(_under_vmap(evaluated, spacing))
    if "second_order" in also:
        asked.append(_second_order(evaluated, spacing))
    return tuple(asked)


def agreement(
    name: str,
    found: Callable[[], PyTree],
    expected: PyTree,
    spacing: float,
    rounding: Callable[[], list[float]] | None = None,
) -> PropertyReport:
    """Whether a tree is another, up to the rounding of another order of the same sums.

    Entries may differ by ε^⅝ of the largest entry of their leaf: compilers fuse and reorder more than people do.
    """
    try:
        tree = found()
    except Exception as error:  # whatever the caller's function raises where it is traced
        return PropertyReport(name, False, f"{type(error).__name__}: {error}".splitlines()[0][:200])
    wanted = jax.tree_util.tree_leaves_with_path(expected)
    floor = 64 * spacing * max((max_abs(as_float64(leaf)) for _, leaf in wanted), default=0.0)
    for number, (leaf, (path, reference)) in enumerate(zip(jax.tree.leaves(tree), wanted, strict=True)):
        if np.array_equal(np.asarray(leaf), np.asarray(reference), equal_nan=True):
            continue
        where = jax.tree_util.keystr(path) or "the root"
        if np.shape(leaf) != np.shape(reference):
            return PropertyReport(name, False, f"shape {np.shape(leaf)} at {where}, where it is {np.shape(reference)}")
        gap = float(np.max(distances(as_float64(leaf), as_float64(reference)), initial=0.0))
        if not gap <= spacing**0.625 * max_abs(as_float64(reference)) + floor and not (
            rounding and gap <= rounding()[number]
        ):
            return PropertyReport(name, False, f"{gap:.2g} apart at {where}")
    return PropertyReport(name, True, "")


def _under_vmap(evaluated, spacing) -> PropertyReport:
    moved = jax.tree.map(lambda leaf: leaf * 1.25, evaluated.params)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), evaluated.params, moved)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), evaluated.by_hand, evaluated.gradient(moved))
    return agreement("under vmap", lambda: jax.vmap(evaluated.gradient)(both), expected, spacing)


def _second_order(evaluated, spacing) -> PropertyReport:
    """The Hessian times a random vector: the hand-written gradient differentiated forward, autodiff's twice over."""
    random = np.random.default_rng(4)
    vector = jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), evaluated.params)
    expected = jax.jvp(jax.grad(evaluated.loss), (evaluated.params,), (vector,))[1]
    return agreement(
        "second order (Hessian times a vector)",
        lambda: jax.jvp(evaluated.gradient, (evaluated.params,), (vector,))[1],
        expected,
        spacing,
    )


def linearity(pullback: Callable[[Any], PyTree], first: Any, second: Any, spacing: float) -> PropertyReport:
    """Whether a vjp is linear in its cotangent: of 3 dy + dy′ it is 3 times that of dy, and that of dy′."""
    together = jax.tree.map(lambda a, b: 3 * a + b, first, second)
    expected = jax.tree.map(lambda a, b: 3 * a + b, pullback(first), pullback(second))
    return agreement("linear in the cotangent", lambda: pullback(together), expected, spacing)
