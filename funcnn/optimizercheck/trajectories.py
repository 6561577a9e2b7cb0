"""Trajectories of an optimizer on many gradient sequences: one compiled scan, or Python where JAX can't trace it."""

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

from funcnn._checks import describe, is_concrete
from funcnn._numerics.program import trace
from funcnn._numerics.rounding import rounding_dtypes
from funcnn._tree_checks import check_same_structure, check_same_tree, same_structure
from funcnn.optimizercheck.sequences import path_text

Phases: TypeAlias = tuple[tuple[optax.GradientTransformation, int], ...]
"""Transformations, each with its number of steps. The state is passed from one to the next."""

_NO_PAIR = "{}: expected update to return (updates, state), got {}. Return the two as a tuple."


class Trajectory(NamedTuple):
    """The updates and states of one optimizer, with the sequences and steps as leading axes.

    Fields:
        updates: a tree like the parameters.
        initial: the states before the first step; ``None`` if they were not requested.
        states: the states after every step; ``None`` if they were not requested.
        python_reason: why the optimizer ran step by step in Python; empty if it was compiled.
        spacing: ε of the coarsest floating dtype to which it rounds.
        changes: the dtypes and structures that an update doesn't keep.
    """

    updates: PyTree
    initial: PyTree
    states: PyTree
    python_reason: str
    spacing: float
    changes: tuple[str, ...]


def single_phase(transformation: Any, steps: int) -> Phases:
    """Return one phase. Plain functions are kept as they are, so that equal calls reuse the compiled program."""
    init, update = transformation.init, transformation.update
    if not (inspect.isfunction(init) and inspect.isfunction(update)):
        # The methods of an object may behave otherwise in the next check; the code of a function doesn't change.
        init, update = functools.partial(init), functools.partial(update)
    return ((optax.GradientTransformation(init, update), steps),)


def compute_trajectory(
    name: str, phases: Phases, params: PyTree, gradients: PyTree, *, with_states: bool = False, is_pure: bool = False
) -> Trajectory:
    """Return the updates on every sequence. The parameters follow the optimizer's own updates.

    Args:
        name: the optimizer's name in error messages, ``"check_optimizer(candidate)"``.
        phases: the optimizer.
        params: leaves of shape ``(sequences, *shape)``.
        gradients: leaves of shape ``(sequences, steps, *shape)``.
        with_states: whether to keep every state.
        is_pure: whether the optimizer is known to give the same program at every trace.

    Raises:
        ValueError: the optimizer raises, or returns another tree than the parameters'.
    """
    first, gradient = _index(params, 0), _index(gradients, (0, 0))
    properties = _trace(name, phases, first, gradient, times=1 if is_pure else 2)
    if properties is None:
        updates, changes = _loop(name, phases, params, gradients, jit=False)
        spacing = max([_spacing(leaf.dtype) for leaf in jax.tree.leaves(updates)], default=0.0)
        return Trajectory(updates, None, None, "JAX can't trace it", spacing, changes)
    spacing, changes, keeps_state = properties
    if not keeps_state:
        updates, _ = _loop(name, phases, params, gradients, jit=True)
        return Trajectory(updates, None, None, "its state changes from step to step", spacing, changes)
    updates, initial, states = _scan(phases, with_states, params, gradients)
    return Trajectory(updates, initial, states, "", spacing, changes)


def incompatibility(transformation: Any, params: PyTree) -> str:
    """Return the reason why an optimizer doesn't accept a tree; empty if it does."""

    def updates(params):
        gradients = jax.tree.map(jnp.ones_like, params)
        return transformation.update(gradients, transformation.init(params), params)[0]

    try:
        try:
            found = jax.eval_shape(updates, params)
        except Exception:  # NumPy functions don't accept tracers
            with np.errstate(all="ignore"):
                found = updates(params)
        check_same_structure("update", found, params, "the parameters")
    except Exception as error:  # whatever the caller's functions raise
        return error_summary(error)
    return ""


def error_summary(error: BaseException) -> str:
    """Return the type and message of an exception on one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:160].replace("PyTreeDef", "tree")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _scan(phases: Phases, with_states: bool, params: PyTree, gradients: PyTree):
    """Run one sequence after another, not batched, so that the compiled program is the caller's."""

    def step(update, carry, gradient):
        params, state = carry
        updates, state = update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), (updates, state if with_states else ())

    def sequence(inputs):
        params, gradients = inputs
        initial = phases[0][0].init(params)
        carry, start, parts = (params, initial), 0, []
        for transformation, steps in phases:
            part = jax.tree.map(lambda g, start=start, steps=steps: g[start : start + steps], gradients)
            carry, outputs = jax.lax.scan(functools.partial(step, transformation.update), carry, part)
            parts.append(outputs)
            start += steps
        updates, states = parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
        return updates, initial if with_states else (), states

    return jax.lax.map(sequence, (params, gradients))


def _trace(name, phases, params, gradient, times) -> tuple[float, tuple[str, ...], bool] | None:
    """Return ε of the arithmetic, the changes of an update, and whether it keeps the state; ``None`` if not traceable.

    A stateful optimizer that counts its steps in an attribute gives another program at the second trace, and one that
    keeps its moments in an attribute fails there. Both run in Python instead.
    """
    transformation = phases[0][0]
    try:
        state = jax.eval_shape(transformation.init, params)
    except Exception:  # whatever the caller's function raises when traced; in Python it may not
        return None
    arguments = gradient, state, params
    programs = [trace(lambda arguments: transformation.update(*arguments), arguments) for _ in range(times)]
    program = programs[0]
    if program is None or any(
        again is None or _program_text(again) != _program_text(program) for again in programs[1:]
    ):
        return None
    if not is_concrete(*program.jaxpr.consts):
        return None
    shapes = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in program.jaxpr.out_avals]
    results = jax.tree.unflatten(program.structure, shapes)
    if not isinstance(results, tuple) or len(results) != 2:
        raise ValueError(_NO_PAIR.format(name, type(results).__name__))
    updates, new_state = results
    check_same_tree(f"{name}: update", updates, params, "the parameters", dtypes=False)
    spacing = max((_spacing(dtype) for dtype in rounding_dtypes(program.jaxpr)), default=0.0)
    spacing = max([spacing, *(_spacing(jnp.result_type(leaf)) for leaf in jax.tree.leaves(state))])
    of_state = _changes("state", state, new_state)
    return spacing, (*_changes("updates", params, updates), *of_state), not of_state


def _loop(name, phases, params, gradients, *, jit) -> tuple[PyTree, tuple[str, ...]]:
    """Run step by step in Python; ``jit`` compiles the single step."""
    steps = [(transformation, count, jax.jit(transformation.update) if jit else transformation.update)
             for transformation, count in phases]  # fmt: skip
    sequences: list = []
    changes: dict[str, None] = {}
    for number in range(len(jax.tree.leaves(params)[0])):
        current, start, row = _index(params, number), 0, []
        try:
            state = phases[0][0].init(current)
        except Exception as error:  # whatever the caller's function raises
            raise _failure(name, "init", error) from error
        for _, count, update in steps:
            for place in range(start, start + count):
                where = f"update, at step {place + 1}"
                gradient = _index(gradients, (number, place))
                updates, state, changed = _step(name, where, update, gradient, state, current)
                changes |= dict.fromkeys(changed)
                row.append(jax.tree.map(np.array, updates))
                current = jax.tree.map(lambda p, u: jnp.asarray((p + u).astype(p.dtype)), current, row[-1])
            start += count
        sequences.append(jax.tree.map(lambda *leaves: np.stack(leaves), *row))
    return jax.tree.map(lambda *leaves: np.stack(leaves), *sequences), tuple(changes)


def _step(name, where, update: Callable, gradient, state, params):
    before = jax.tree.map(lambda leaf: (jnp.shape(leaf), _dtype(leaf)), state)
    try:
        with np.errstate(all="ignore"):
            results = update(gradient, state, params)
    except Exception as error:  # whatever the caller's function raises
        raise _failure(name, where, error) from error
    if not isinstance(results, tuple) or len(results) != 2:
        raise ValueError(_NO_PAIR.format(name, type(results).__name__))
    updates, state = results
    check_same_tree(f"{name}: update", updates, params, "the parameters", dtypes=False)
    after = jax.tree.map(lambda leaf: (jnp.shape(leaf), _dtype(leaf)), state)
    changes = list(_changes("updates", params, updates))
    if before != after:
        changes.append("the state's structure, shapes or dtypes change from step to step")
    return updates, state, changes


def _changes(what, before, after) -> tuple[str, ...]:
    """Return the difference of structure of two trees, else the first leaf of another shape or dtype."""
    if not same_structure(before, after):
        return ("the updates have another structure" if what == "updates" else "the state changes its structure",)
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    for (path, old), new in leaves:
        new_dtype, old_dtype = jnp.result_type(new), jnp.result_type(old)
        # NumPy computes in float64 whatever JAX's configuration is. A wider dtype from NumPy is not a mistake.
        is_wider = isinstance(new, np.ndarray | np.generic) and np.promote_types(new_dtype, old_dtype) == new_dtype
        if jnp.shape(new) != jnp.shape(old) or (new_dtype != old_dtype and not is_wider):
            return (f"{what}: {describe(new)} at {path_text(path)}, where {describe(old)} was given",)
    return ()


def _index(tree, place):
    """Return one sequence, or one step of it, as JAX arrays."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[place]), tree)


def _failure(name, where, error) -> ValueError:
    if isinstance(error, jax.errors.UnexpectedTracerError):
        return ValueError(
            f"{name}: expected a state that goes in and comes out, but {where} used arrays that it had stored "
            "elsewhere when JAX traced it. Put them in the state that init and update return, or create them in init."
        )
    return ValueError(
        f"{name}: expected an optimizer that runs on these parameters, but {where} raised {error_summary(error)}. "
        "init takes params; update takes (gradients, state, params) and returns (updates, state)."
    )


def _program_text(program) -> str:
    return re.sub(r" at 0x[0-9a-f]+", "", str(program.jaxpr))


def _dtype(leaf):
    return getattr(leaf, "dtype", type(leaf))


def _spacing(dtype) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.inexact) else 0.0
