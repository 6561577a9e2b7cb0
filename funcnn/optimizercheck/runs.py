"""An optimizer's updates on many gradient sequences: one compiled scan, or Python where JAX can't trace it."""

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import PyTree

from funcnn._checks import check_same_structure, check_same_tree, describe, is_concrete, same_structure
from funcnn.gradcheck.program import recorded
from funcnn.gradcheck.rounding import rounded_to

Phases: TypeAlias = tuple[tuple[optax.GradientTransformation, int], ...]
"""Transformations, each with the number of steps that it takes; the state goes on from one to the next."""


class Run(NamedTuple):
    """What an optimizer did, the sequences and steps in front.

    Fields:
        updates: a tree like the parameters.
        initial: the states before the first step; ``states``: those after every step. ``None`` where nobody asked.
        why_python: why it ran step by step in Python, empty where it was compiled.
        spacing: ε of the coarsest floats to which it rounds.
        changes: what an update changes that it should keep: dtypes of updates and state, the state's structure.
    """

    updates: PyTree
    initial: PyTree
    states: PyTree
    why_python: str
    spacing: float
    changes: tuple[str, ...]


def phases_of(transformation: Any, steps: int) -> Phases:
    """One phase. Plain functions are passed on as they are, so that equal calls find what JAX compiled."""
    init, update = transformation.init, transformation.update
    if not (inspect.isfunction(init) and inspect.isfunction(update)):
        # What an object's methods do may change between two checks; a function's code doesn't.
        init, update = functools.partial(init), functools.partial(update)
    return ((optax.GradientTransformation(init, update), steps),)


def run(
    name: str, phases: Phases, params: PyTree, gradients: PyTree, *, with_states: bool = False, known: bool = False
) -> Run:
    """The updates on every sequence, from parameters that follow the optimizer's own updates.

    Args:
        name: what to call the optimizer in errors, ``"check_optimizer(candidate)"``.
        phases: the optimizer.
        params: leaves of shape ``(sequences, *shape)``.
        gradients: leaves of shape ``(sequences, steps, *shape)``.
        with_states: whether to keep every state.
        known: whether it is known to be the same program every time that JAX traces it.

    Raises:
        ValueError: it raises, or returns another tree than the parameters'.
    """
    first, gradient = _at(params, 0), _at(gradients, (0, 0))
    facts = _traced(name, phases, first, gradient, times=1 if known else 2)
    if facts is None:
        updates, changes = _walked(name, phases, params, gradients, jit=False)
        spacing = max([_spacing(leaf.dtype) for leaf in jax.tree.leaves(updates)], default=0.0)
        return Run(updates, None, None, "JAX can't trace it", spacing, changes)
    spacing, changes, keeps_state = facts
    if not keeps_state:
        updates, _ = _walked(name, phases, params, gradients, jit=True)
        return Run(updates, None, None, "its state changes from step to step", spacing, changes)
    updates, initial, states = _scanned(phases, with_states, params, gradients)
    return Run(updates, initial, states, "", spacing, changes)


def takes(transformation: Any, params: PyTree) -> str:
    """Why an optimizer can't take a tree; empty where it can."""

    def updates(params):
        gradients = jax.tree.map(jnp.ones_like, params)
        return transformation.update(gradients, transformation.init(params), params)[0]

    try:
        try:
            found = jax.eval_shape(updates, params)
        except Exception:  # NumPy's functions take no tracers
            with np.errstate(all="ignore"):
                found = updates(params)
        check_same_structure("update", found, params, "the parameters")
    except Exception as error:  # whatever the caller's functions raise
        return reason(error)
    return ""


def reason(error: Exception) -> str:
    """An exception on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scanned(phases: Phases, with_states: bool, params: PyTree, gradients: PyTree):
    """One sequence after another, so that no step is batched: it is the caller's program that runs."""

    def step(update, carry, gradient):
        params, state = carry
        updates, state = update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), (updates, state if with_states else ())

    def sequence(given):
        params, gradients = given
        initial = phases[0][0].init(params)
        carry, done, parts = (params, initial), 0, []
        for transformation, steps in phases:
            part = jax.tree.map(lambda g, done=done, steps=steps: g[done : done + steps], gradients)
            carry, outputs = jax.lax.scan(functools.partial(step, transformation.update), carry, part)
            parts.append(outputs)
            done += steps
        updates, states = parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        return updates, initial if with_states else (), states

    return jax.lax.map(sequence, (params, gradients))


def _traced(name, phases, params, gradient, times) -> tuple[float, tuple[str, ...], bool] | None:
    """ε of its arithmetic, what an update changes, and whether the state is kept; ``None`` where it can't be traced.

    Traced twice: an optimizer that counts its steps on itself is another program the second time, and one that keeps
    its moments there has lost them. Either runs in Python, where such a thing works.
    """
    transformation = phases[0][0]
    try:
        state = jax.eval_shape(transformation.init, params)
    except Exception:  # whatever the caller's function raises at a tracer; in Python it may not
        return None
    given = gradient, state, params
    programs = [recorded(lambda given: transformation.update(*given), given) for _ in range(times)]
    program = programs[0]
    if program is None or any(again is None or _text(again) != _text(program) for again in programs[1:]):
        return None
    if not is_concrete(*program.jaxpr.consts):
        return None
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.out_avals]
    results = jax.tree.unflatten(program.structure, shapes)
    if not isinstance(results, tuple) or len(results) != 2:
        raise ValueError(f"{name}: expected update to return (updates, state), got {type(results).__name__}.")
    updates, after = results
    check_same_tree(f"{name}: update", updates, params, "the parameters", dtypes=False)
    spacing = max((_spacing(dtype) for dtype in rounded_to(program.jaxpr)), default=0.0)
    spacing = max([spacing, *(_spacing(jnp.result_type(leaf)) for leaf in jax.tree.leaves(state))])
    of_state = _changes("state", state, after)
    return spacing, (*_changes("updates", params, updates), *of_state), not of_state


def _walked(name, phases, params, gradients, *, jit) -> tuple[PyTree, tuple[str, ...]]:
    """Step by step in Python; ``jit`` compiles the single step."""
    steps = [(transformation, count, jax.jit(transformation.update) if jit else transformation.update)
             for transformation, count in phases]  # fmt: skip
    sequences: list = []
    changes: dict[str, None] = {}
    for number in range(len(jax.tree.leaves(params)[0])):
        current, done, row = _at(params, number), 0, []
        try:
            state = phases[0][0].init(current)
        except Exception as error:  # whatever the caller's function raises
            raise _raised(name, "init", error) from error
        for _, count, update in steps:
            for place in range(done, done + count):
                where = f"update, at step {place + 1}"
                gradient = _at(gradients, (number, place))
                updates, state, changed = _stepped(name, where, update, gradient, state, current)
                changes |= dict.fromkeys(changed)
                row.append(jax.tree.map(np.array, updates))
                current = jax.tree.map(lambda p, u: jnp.asarray((p + u).astype(p.dtype)), current, row[-1])
            done += count
        sequences.append(jax.tree.map(lambda *leaves: np.stack(leaves), *row))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *sequences), tuple(changes)


def _stepped(name, where, update: Callable, gradient, state, params):
    before = jax.tree.map(lambda leaf: (jnp.shape(leaf), _dtype(leaf)), state)
    try:
        with np.errstate(all="ignore"):
            results = update(gradient, state, params)
    except Exception as error:  # whatever the caller's function raises
        raise _raised(name, where, error) from error
    if not isinstance(results, tuple) or len(results) != 2:
        raise ValueError(f"{name}: expected update to return (updates, state), got {type(results).__name__}.")
    updates, state = results
    check_same_tree(f"{name}: update", updates, params, "the parameters", dtypes=False)
    after = jax.tree.map(lambda leaf: (jnp.shape(leaf), _dtype(leaf)), state)
    changed = list(_changes("updates", params, updates))
    if before != after:
        changed.append("the state's structure, shapes or dtypes change from step to step")
    return updates, state, changed


def _changes(what, before, after) -> tuple[str, ...]:
    """How a tree isn't like another: its structure, else the first leaf of another shape or dtype."""
    if not same_structure(before, after):
        return (
            f"the {what} come back in another structure" if what == "updates" else "the state changes its structure",
        )
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in leaves:
        given, wanted = jnp.result_type(new), jnp.result_type(old)
        # NumPy computes in float64 whatever JAX is set to: more digits are no mistake of NumPy's.
        is_wider = isinstance(new, np.ndarray | np.generic) and np.promote_types(given, wanted) == given
        if jnp.shape(new) != jnp.shape(old) or (given != wanted and not is_wider):
            where = jax.tree_util.keystr(path) or "the root"
            return (f"{what}: {describe(new)} at {where}, where it is given {describe(old)}",)
    return ()


def _at(tree, place):
    """One sequence, or one step of it, in JAX's arrays."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[place]), tree)


def _raised(name, where, error) -> ValueError:
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return ValueError(
            f"{name}: expected a state that goes in and comes out, but {where} met arrays that it kept elsewhere when "
            "JAX traced it. Put them in the state that init and update return, or make them anew in init."
        )
    return ValueError(
        f"{name}: expected an optimizer that runs on these parameters, but {where} raised {reason(error)}. "
        "init takes params; update takes (gradients, state, params) and returns (updates, state)."
    )


def _text(program) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", str(program.jaxpr))


def _dtype(leaf):
    return getattr(leaf, "dtype", type(leaf))


def _spacing(dtype) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
