"""Members of an ensemble on all cores of a CPU: XLA gives a small kernel one core, a thread's programs run in turn."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from funcnn._checks import is_concrete


def on_every_core(run: jax.stages.Wrapped, shared: Any, members: Array) -> Any:
    """``run(shared, members)``; on a CPU the members are cut into equal parts, at most one for each core.

    Args:
        run: jitted, its results with the members as their first axis.
        shared: what all members use, a tree of arrays.
        members: an array that is cut along its first axis.
    """
    cores = min(_cores_for(shared, members), len(members))
    if cores == 1:
        return run(shared, members)
    each = -(-len(members) // cores)
    cores = -(-len(members) // each)
    # Equal parts are one program: the last member fills up the last of them.
    rows = jnp.minimum(jnp.arange(cores * each), len(members) - 1).reshape(cores, each)
    parts = [members[row] for row in rows]
    # Compiled here, for a thread has none of the caller's JAX settings that hold in a context alone.
    program = run.lower(shared, parts[0]).compile()
    with ThreadPoolExecutor(cores) as pool:
        found = list(pool.map(lambda part: jax.block_until_ready(program(shared, part)), parts))
    return _joined(found, count=len(members))


def _cores_for(*given) -> int:
    """The cores to share the work among: one for what is traced, or doesn't lie on a single CPU device."""
    leaves = [leaf for leaf in jax.tree.leaves(given) if isinstance(leaf, jax.Array)]
    if not is_concrete(*leaves):
        return 1
    devices = {device for leaf in leaves for device in leaf.devices()}
    if len(devices) > 1 or {device.platform for device in devices} != {"cpu"}:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@partial(jax.jit, static_argnames="count")
def _joined(parts, *, count):
    return jax.tree.map(lambda *of: jnp.concatenate(of)[:count], *parts)
