"""Training on a mesh of the one device that there always is; eight are in ``tests/distributed``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import funcnn as fnn
from funcnn.training.placement import WIDE, placement_on
from tests.training.runs import X, Y, batches, bits, run

MODEL = fnn.mlp((3, WIDE, 8, 1), fnn.tanh)


def mesh(*axes):
    return Mesh(np.array(jax.devices()[:1]).reshape((1,) * len(axes)), axes)


@pytest.mark.parametrize("data", [{}, {"data": batches(), "batch_size": None}], ids=["arrays", "a stream"])
def test_one_device_gives_the_bits_of_a_run_without_a_mesh(data):
    settings = {"model": MODEL, "epochs": 2, "validation": (X, Y), **data}
    assert bits(run(mesh=mesh("data", "model"), **settings)) == bits(run(**settings))


def test_the_second_axis_splits_the_columns_of_wide_kernels_alone():
    both, batch_alone = (placement_on(mesh(*axes), 8) for axes in (("data", "model"), ("data",)))
    shapes = [(3, WIDE), (2, 3, WIDE), (WIDE, 8), (WIDE,), ()]
    specs = [both.sharding_of(jnp.zeros(shape)).spec for shape in shapes]
    by_columns = [PartitionSpec(None, "model"), PartitionSpec(None, None, "model")]
    assert specs == by_columns + [PartitionSpec()] * 3
    assert {batch_alone.sharding_of(jnp.zeros(shape)).spec for shape in shapes} == {PartitionSpec()}


def test_a_mesh_of_more_than_two_axes_is_refused():
    with pytest.raises(ValueError, match=r"fit\(mesh\): expected one axis, .* or two, .*got \('a', 'b', 'c'\)"):
        run(mesh=mesh("a", "b", "c"))
