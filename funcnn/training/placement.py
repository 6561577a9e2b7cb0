"""Placement of training on a mesh of devices: the batch is split, parameters are copied, wide kernels are split.

XLA partitions the program that a single device runs (GSPMD). Sums over the batch, including the statistics of batch
normalization, are sums over the whole batch on any mesh.

Source:
    Xu et al., "GSPMD: general and scalable parallelization for ML computation graphs", 2021.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from funcnn.training.fingerprint import key_data
from funcnn.types import Batch

WIDE = 128
"""Kernels with fewer columns are copied to every device: exchanging their parts would cost more than it saves."""


class Placement(NamedTuple):
    """A mesh whose first axis splits the batch and whose second, if there is one, splits wide kernels by columns."""

    mesh: Mesh

    def split_batch(self, batch: Batch) -> Batch:
        """Split a batch over the devices. A batch that cannot be split evenly is copied to all of them."""
        axis = self.mesh.axis_names[0]

        def split(array):
            is_even = array.shape[0] % self.mesh.shape[axis] == 0
            return lax.with_sharding_constraint(array, self._sharding(axis) if is_even else self._sharding())

        return jax.tree.map(split, batch)

    def keep(self, tree: PyTree) -> PyTree:
        """Constrain every array of a carry to its sharding, inside ``jit``."""
        return jax.tree.map(lambda leaf: lax.with_sharding_constraint(leaf, self.sharding_of(leaf)), tree)

    def put(self, tree: PyTree) -> PyTree:
        """Place a carry's arrays on the mesh: copied to every device, wide kernels split by columns.

        Every process passes the same values.
        """
        return jax.tree.map(lambda leaf: _place(leaf, self.sharding_of(leaf)), tree)

    def copy(self, tree: PyTree) -> PyTree:
        """Copy arrays to every device of the mesh."""
        return jax.tree.map(lambda leaf: _place(leaf, self._sharding()), tree)

    def assemble(self, batch: Batch) -> Batch:
        """Make a global batch from the part that this process read. One that cannot be split evenly is copied.

        Raises:
            ValueError: it cannot be split evenly, and other processes have other parts.
        """
        axis, processes = self.mesh.axis_names[0], jax.process_count()
        samples = len(batch.x) * processes
        if samples % self.mesh.shape[axis]:
            if processes == 1:
                return self.copy(batch)
            raise ValueError(
                f"fit(data): expected batches that {self.mesh.shape[axis]} devices along {axis!r} can share evenly, "
                f"got one of {samples} samples in {processes} processes. Drop the remainder in the loader."
            )
        sharding = self._sharding(axis)
        return jax.tree.map(
            lambda part: jax.make_array_from_process_local_data(sharding, np.asarray(part)), batch
        )  # fmt: skip

    def sharding_of(self, leaf: Any) -> NamedSharding:
        """Return the sharding of an array of the carry."""
        axes = self.mesh.axis_names
        if len(axes) == 1 or leaf.ndim < 2 or leaf.shape[-1] < WIDE or leaf.shape[-1] % self.mesh.shape[axes[1]]:
            return self._sharding()
        return self._sharding(*(None,) * (leaf.ndim - 1), axes[1])

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of an array that every device has a copy of."""
        return self._sharding()

    def _sharding(self, *axes):
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def _place(leaf, sharding):
    """Place an array. Typed keys are placed as words, because JAX moves only those between processes."""
    words = key_data(leaf)
    placed = jax.device_put(words, sharding)
    return placed if words is leaf else jax.random.wrap_key_data(placed, impl=jax.random.key_impl(leaf))


def placement_on(mesh: Mesh | None, batch_size: int | None) -> Placement | None:
    """Return the placement on a mesh, ``None`` without one.

    Raises:
        TypeError: mesh is not a ``jax.sharding.Mesh``.
        ValueError: the mesh has more than two axes, or the batch cannot be split evenly over the first.
    """
    if mesh is None:
        return None
    if not isinstance(mesh, Mesh):
        raise TypeError(
            f"fit(mesh): expected a jax.sharding.Mesh, got {mesh!r}. Make one: jax.make_mesh((8,), ('data',))."
        )
    if len(mesh.axis_names) not in (1, 2):
        raise ValueError(
            f"fit(mesh): expected one axis, for the batch, or two, for the batch and the kernels' columns, "
            f"got {mesh.axis_names}. Reshape its devices."
        )
    shards = mesh.shape[mesh.axis_names[0]]
    if batch_size is not None and batch_size % shards:
        raise ValueError(
            f"fit(batch_size): expected a multiple of the {shards} devices along the mesh's axis "
            f"{mesh.axis_names[0]!r}, got {batch_size}. Take {max(batch_size // shards, 1) * shards}."
        )
    # Axes of the automatic kind: placement is by constraint, whatever kind the caller's mesh has.
    return Placement(Mesh(mesh.devices, mesh.axis_names))
