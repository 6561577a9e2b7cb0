"""Several processes that train one network together: ``--distributed`` of an experiment.

On a cluster that JAX knows (Slurm, Open MPI, Kubernetes, Cloud TPU) nothing else has to be said. Elsewhere start the
script once a process, with ``--coordinator HOST:PORT --processes N --process I``.
"""

import inspect
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

HEARTBEAT = 10
"""Seconds of silence after which a process counts as dead and the others stop."""


@dataclass(frozen=True, kw_only=True)
class DistributedSettings:
    """What a process has to know of the others."""

    distributed: bool = False
    """Train on the devices of several processes together."""
    coordinator: str | None = None
    """HOST:PORT of the first process; found by itself on a cluster."""
    processes: int | None = None
    """How many processes there are; found by itself on a cluster."""
    process: int | None = None
    """Which of them this is, from 0; found by itself on a cluster."""


def join(settings: DistributedSettings) -> Mesh | None:
    """Join the other processes; the mesh of all their devices, ``None`` where there are none to join.

    Raises:
        ValueError: some of the three figures are given and not all.
    """
    if not settings.distributed:
        return None
    given = (settings.coordinator, settings.processes, settings.process)
    if any(value is None for value in given) and any(value is not None for value in given):
        raise ValueError("--distributed: expected all of --coordinator, --processes and --process, or none of them.")
    known = inspect.signature(jax.distributed.initialize).parameters
    patience = {"heartbeat_timeout_seconds": HEARTBEAT} if "heartbeat_timeout_seconds" in known else {}
    if not jax.distributed.is_initialized():
        jax.distributed.initialize(*given, **patience)
    return Mesh(np.array(jax.devices()), ("data",))
