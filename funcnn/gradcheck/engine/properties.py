"""Properties of a gradient: repeatability, jit, vmap, second order, and linearity of a vjp."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from funcnn._numerics.arrays import as_float64, distances, max_abs
from funcnn._numerics.program import evaluate_calls
from funcnn.gradcheck.engine.functions import describe_error
from funcnn.gradcheck.engine.precision import Comparison, Gradients
from funcnn.gradcheck.report import PropertyReport

Property: TypeAlias = Literal["jit", "vmap", "second_order"]
"""The optional properties that ``check_gradients(also=…)`` checks."""


def check_also(name: str, also: Sequence[str]) -> None:
    """Check that ``also`` is a sequence of properties."""
    known = get_args(Property)
    if not isinstance(also, Sequence) or isinstance(also, str) or any(word not in known for word in also):
        raise ValueError(f"{name}(also): expected some of {known}, got {also!r}. Pass a tuple, also=('jit',).")


def repeatability(own: Gradients, again: PyTree) -> PropertyReport:
    """Return whether the caller's function gave the same gradient a second time."""
    spacings = [float(jnp.finfo(jnp.result_type(leaf)).eps) for leaf in jax.tree.leaves(own.params)]
    return agreement("the same twice", lambda: again, own.by_hand, max(spacings, default=0.0))


def traced_properties(
    comparison: Comparison, also: Sequence[Property], rounding: Callable[[], list[float]]
) -> tuple[PropertyReport, ...]:
    """Return whether the gradient is the same when it is traced, and the properties in ``also``.

    ``rounding`` returns how much of each leaf is rounding. It is called only if a leaf differs.
    """
    gradients, spacing = comparison.gradients, comparison.call_spacing
    reports = []
    if comparison.gradient_program is not None and "jit" not in also:
        # Without a call in the precision of the comparison, the traced gradient was held against the caller's own call.
        traced = gradients.by_hand if comparison.traced is None else comparison.traced
        name, program = "the same traced, as under jit", comparison.gradient_program
        found = agreement(name, lambda: traced, gradients.by_hand, spacing, rounding)
        if not found.ok:
            # A compiler may round a tie away; operation by operation it is one.
            leaves = evaluate_calls(program.jaxpr, program.jaxpr.consts, jax.tree.leaves(gradients.params))
            again = agreement(
                name, lambda: jax.tree.unflatten(program.structure, leaves), gradients.by_hand, spacing, rounding
            )
            found = again if again.ok else found
        reports.append(found)
    checks = {
        "jit": lambda: _jit_property(gradients, spacing, rounding),
        "vmap": lambda: _vmap_property(gradients, spacing),
        "second_order": lambda: _second_order_property(gradients, spacing),
    }
    reports += [checks[word]() for word in also]
    return tuple(reports)


def agreement(
    name: str,
    found: Callable[[], PyTree],
    expected: PyTree,
    spacing: float,
    rounding: Callable[[], list[float]] | None = None,
) -> PropertyReport:
    """Return whether two trees are equal up to the rounding of another order of the same sums.

    Entries may differ by ε^⅝ of the largest entry of their leaf, because compilers fuse and reorder operations.

    Args:
        name: the name of the property.
        found: returns the tree; an exception is a failure.
        expected: the other tree.
        spacing: ε of the arithmetic.
        rounding: returns a larger tolerance for each leaf; called only if a leaf differs by more.
    """
    try:
        tree = found()
    except Exception as error:  # whatever the caller's function raises when it is traced
        return PropertyReport(name, False, describe_error(error, 200))
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


def not_checked(name: str, forward: Callable[[], Any]) -> PropertyReport | None:
    """Return that a property isn't checked of a gradient where the forward function lacks it, and ``None`` otherwise.

    Args:
        name: the property.
        forward: evaluates the forward function with the property.
    """
    try:
        jax.eval_shape(forward)
    except Exception as error:  # whatever JAX or the caller's function raises
        return PropertyReport(name, None, f"not checked: the function itself fails there ({type(error).__name__})")
    return None


def _jit_property(gradients, spacing, rounding) -> PropertyReport:
    name = "under jit"
    return not_checked(name, lambda: gradients.loss(_traced(gradients.params))) or agreement(
        name, lambda: jax.jit(gradients.gradient)(gradients.params), gradients.by_hand, spacing, rounding
    )


def _traced(tree):
    """Return a tree as tracers under ``eval_shape``."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf) + jnp.zeros((), leaf.dtype), tree)


def _vmap_property(gradients, spacing) -> PropertyReport:
    name, moved = "under vmap", jax.tree.map(lambda leaf: leaf * 1.25, gradients.params)
    both = jax.tree.map(lambda *leaves: jnp.stack(leaves), gradients.params, moved)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), gradients.by_hand, gradients.gradient(moved))
    return not_checked(name, lambda: jax.vmap(gradients.loss)(both)) or agreement(
        name, lambda: jax.vmap(gradients.gradient)(both), expected, spacing
    )


def _second_order_property(gradients, spacing) -> PropertyReport:
    """Compare the Hessian times a random vector: by ``jax.jvp`` of the hand-written gradient and of autodiff's."""
    name, random = "second order (Hessian times a vector)", np.random.default_rng(4)
    vector = jax.tree.map(lambda leaf: jnp.asarray(random.standard_normal(leaf.shape), leaf.dtype), gradients.params)

    def product(gradient):
        return jax.jvp(gradient, (gradients.params,), (vector,))[1]

    return not_checked(name, lambda: product(jax.grad(gradients.loss))) or agreement(
        name, lambda: product(gradients.gradient), product(jax.grad(gradients.loss)), spacing
    )


def linearity(pullback: Callable[[Any], PyTree], first: Any, second: Any, spacing: float) -> PropertyReport:
    """Return whether a vjp is linear in its cotangent: pullback(3 dy + dy′) = 3 pullback(dy) + pullback(dy′)."""
    together = jax.tree.map(_add_thrice, first, second)
    expected = jax.tree.map(_add_thrice, pullback(first), pullback(second))
    return agreement("linear in the cotangent", lambda: pullback(together), expected, spacing)


def _add_thrice(first, second):
    """Return 3 a + b, by NumPy because JAX would compile a program for every shape."""
    dtype = jnp.result_type(first)
    return jax.device_put((3 * np.asarray(first) + np.asarray(second)).astype(dtype))
