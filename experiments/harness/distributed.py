"""Training of one network by several processes: an experiment's ``--distributed``.

On a cluster that JAX detects (Slurm, Open MPI, Kubernetes, Cloud TPU) no other option is needed. Elsewhere start the
script once per process, with ``--coordinator HOST:PORT --processes N --process I``.
"""

import inspect
from dataclasses import dataclass

import jax
import numpy as np
from jax.sharding import Mesh

HEARTBEAT = 10
"""Seconds without a heartbeat after which a process counts as dead and the others stop."""


@dataclass(frozen=True, kw_only=True)
class DistributedSettings:
    """The options of a process that trains with others."""

    distributed: bool = False
    """Train on the devices of several processes together."""
    coordinator: str | None = None
    """HOST:PORT of the first process; detected on a cluster."""
    processes: int | None = None
    """The number of processes; detected on a cluster."""
    process: int | None = None
    """The index of this process, from 0; detected on a cluster."""


def join(settings: DistributedSettings) -> Mesh | None:
    """Join the other processes and return the mesh of all their devices, or ``None`` without ``--distributed``.

    Raises:
        ValueError: only some of the three options are given.
    """
    if not settings.distributed:
        return None
    addresses = (settings.coordinator, settings.processes, settings.process)
    if any(value is None for value in addresses) and any(value is not None for value in addresses):
        raise ValueError("--distributed: expected all of --coordinator, --processes and --process, or none of them.")
    parameters = inspect.signature(jax.distributed.initialize).parameters
    options = {"heartbeat_timeout_seconds": HEARTBEAT} if "heartbeat_timeout_seconds" in parameters else {}
    if not jax.distributed.is_initialized():
        jax.distributed.initialize(*addresses, **options)
    return Mesh(np.array(jax.devices()), ("data",))
