"""Run the members of an ensemble on all cores of a CPU. XLA runs a small kernel on one core, in one thread."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from funcnn._checks import is_concrete


def on_every_core(run: jax.stages.Wrapped, shared: Any, members: Array) -> Any:
    """Return ``run(shared, members)``. On a CPU the members are split into equal parts, at most one for each core.

    Args:
        run: a jitted function whose results have the members as their first axis.
        shared: a tree of arrays that all members use.
        members: an array that is split along its first axis.
    """
    cores = min(_cores_for(shared, members), len(members))
    if cores == 1:
        return run(shared, members)
    each = -(-len(members) // cores)
    cores = -(-len(members) // each)
    # Equal parts need one program: copies of the last member fill up the last part.
    rows = jnp.minimum(jnp.arange(cores * each), len(members) - 1).reshape(cores, each)
    parts = [members[row] for row in rows]
    # Compiled here, because a thread does not have the JAX settings of the caller's contexts.
    program = run.lower(shared, parts[0]).compile()
    with ThreadPoolExecutor(cores) as pool:
        results = list(pool.map(lambda part: jax.block_until_ready(program(shared, part)), parts))
    return _join(results, count=len(members))


def _cores_for(*given) -> int:
    """Return the number of cores to use: one for traced arrays, and for arrays that aren't on a single CPU device."""
    leaves = [leaf for leaf in jax.tree.leaves(given) if isinstance(leaf, jax.Array)]
    if not is_concrete(*leaves):
        return 1
    devices = {device for leaf in leaves for device in leaf.devices()}
    if len(devices) > 1 or {device.platform for device in devices} != {"cpu"}:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@partial(jax.jit, static_argnames="count")
def _join(parts, *, count):
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[:count], *parts)
