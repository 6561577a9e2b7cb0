"""One network on eight virtual devices: the result of one device, whatever the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import funcnn as fnn
from tests.cases import KEY, WIDEST, largest_gap
from tests.training.runs import bits

X = jax.random.normal(KEY, (70, 3), WIDEST)
Y = jnp.sin(X.sum(axis=1, keepdims=True))
MODEL = fnn.mlp((3, 256, 8, 1), fnn.tanh, normalization=fnn.batch_norm, dropout=0.1)
ROUNDING = 1e-10 if jnp.float64 == WIDEST else 2e-4
MESHES = {"8": ((8,), ("data",)), "4 x 2": ((4, 2), ("data", "model")), "2": ((2,), ("rows",))}


def run(**changes):
    """Not Adam: in front of batch normalization a bias has a gradient of nothing but rounding, which Adam scales up."""
    settings = {"model": MODEL, "loss": fnn.mean_squared_error, "optimizer": fnn.momentum(0.05), "data": (X, Y),
                "epochs": 4, "batch_size": 16, "key": KEY} | changes  # fmt: skip
    return fnn.fit(**settings)


def mesh(name):
    shape, axes = MESHES[name]
    return Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), axes)


def batches():
    return [(np.asarray(X[i : i + 16]), np.asarray(Y[i : i + 16])) for i in range(0, 64, 16)]


def test_there_are_eight_devices():
    assert len(jax.devices()) == 8


@pytest.mark.parametrize("name", MESHES)
def test_the_result_of_one_device(name):
    alone, together = run(), run(mesh=mesh(name))
    assert largest_gap(jax.device_get(together.params), jax.device_get(alone.params)) <= ROUNDING
    assert largest_gap(jax.device_get(together.state), jax.device_get(alone.state)) <= ROUNDING
    np.testing.assert_allclose(together.history.step_loss, alone.history.step_loss, rtol=100 * ROUNDING)


def test_a_gpt_on_a_mesh_is_that_of_one_device():
    tokens = jax.random.randint(KEY, (16, 5), 0, 130)
    data = (tokens[:, :-1], tokens[:, 1:])
    changes = {"model": fnn.gpt(130, 4, 32, 2, 2), "loss": fnn.softmax_cross_entropy, "data": data, "epochs": 2}
    alone, together = run(**changes), run(**changes, mesh=mesh("4 x 2"))
    assert largest_gap(jax.device_get(together.params), jax.device_get(alone.params)) <= ROUNDING


def test_wide_kernels_are_split_by_columns_and_the_rest_is_copied():
    trained = run(mesh=mesh("4 x 2"), epochs=1)
    wide, narrow = trained.params[0], trained.params[4]
    assert wide.kernel.addressable_shards[0].data.shape == (3, 128)
    assert trained.opt_state[0].trace[0].kernel.addressable_shards[0].data.shape == (3, 128)
    assert narrow.kernel.addressable_shards[0].data.shape == (256, 8)
    assert wide.bias.sharding.is_fully_replicated


def test_each_device_works_on_its_part_of_the_batch():
    """The compiled step of eight devices does about an eighth of the arithmetic on each."""
    from funcnn.training.placement import placement_on
    from funcnn.training.steps import Carry, TrainingSetup, run_batch

    model, sgd = fnn.mlp((64, 64, 64)), fnn.sgd(0.1)
    params, state = model.init(KEY)
    batch = fnn.Batch(jnp.ones((512, 64), WIDEST), jnp.ones((512, 64), WIDEST))
    carry = Carry(params, state, sgd.init(params))

    def operations(placement):
        setup = TrainingSetup(model, fnn.mean_squared_error, sgd, fnn.manual_value_and_grad, 512, placement)
        placed = carry if placement is None else placement.put(carry)
        given = batch if placement is None else placement.assemble(batch)
        lowered = run_batch.lower(placed, given, KEY, np.int32(0), setup=setup)
        analysis = lowered.compile().cost_analysis()
        return (analysis[0] if isinstance(analysis, list) else analysis)["flops"]

    assert operations(placement_on(mesh("8"), 512)) < operations(None) / 6


def test_streams_and_validation_on_a_mesh():
    settings = {"data": batches(), "batch_size": None, "validation": (X, Y)}
    alone, together = run(**settings), run(mesh=mesh("8"), **settings)
    assert largest_gap(jax.device_get(together.params), jax.device_get(alone.params)) <= ROUNDING
    np.testing.assert_allclose(
        together.history.validation["loss"], alone.history.validation["loss"], rtol=100 * ROUNDING
    )


@pytest.mark.parametrize("name", ["8", "4 x 2"])
def test_a_run_on_a_mesh_goes_on_to_the_last_bit(tmp_path, name):
    whole = run(mesh=mesh(name))
    saved = fnn.Checkpoints(tmp_path, every=7)
    with pytest.raises(ZeroDivisionError):
        run(mesh=mesh(name), checkpoints=saved, callbacks=[lambda progress: 1 // (2 - progress.epoch) < 0])
    assert bits(run(mesh=mesh(name), checkpoints=saved)) == bits(whole)


def test_a_run_may_go_on_on_fewer_devices(tmp_path):
    saved = fnn.Checkpoints(tmp_path, every=7)
    run(mesh=mesh("4 x 2"), epochs=2, checkpoints=saved)
    assert largest_gap(jax.device_get(run(checkpoints=saved).params), jax.device_get(run().params)) <= ROUNDING


def test_a_mesh_that_jax_makes_is_welcome():
    trained = run(mesh=jax.make_mesh((8,), ("data",)), epochs=1)
    assert largest_gap(jax.device_get(trained.params), jax.device_get(run(epochs=1).params)) <= ROUNDING


def test_a_short_last_batch_of_a_stream_is_copied():
    uneven = [*batches(), (np.asarray(X[:5]), np.asarray(Y[:5]))]
    settings = {"data": uneven, "batch_size": None, "epochs": 2}
    together, alone = run(mesh=mesh("8"), **settings), run(**settings)
    assert largest_gap(jax.device_get(together.params), jax.device_get(alone.params)) <= ROUNDING


def test_a_gradient_of_sharded_parameters_is_measured_where_they_are():
    """A loss that is mapped over the devices takes no parameters that have left them."""
    mesh = Mesh(np.array(jax.devices()), ("features",))
    spread = jax.sharding.PartitionSpec("features")

    def squared(w):
        return jax.lax.psum((w**2).sum(), "features")

    loss = jax.shard_map(squared, mesh=mesh, in_specs=spread, out_specs=jax.sharding.PartitionSpec())
    w = jax.device_put(jnp.arange(1.0, 17, dtype=WIDEST), jax.sharding.NamedSharding(mesh, spread))
    right, wrong = fnn.check_gradients(loss, lambda w: 2 * w, w), fnn.check_gradients(loss, lambda w: w, w)
    assert "the measured slope of the loss confirms both" in right.reason
    assert wrong.verdict == "hand-written wrong"


def test_what_a_mesh_refuses(as_for_users):
    with pytest.raises(ValueError, match=r"multiple of the 8 devices .* 'data', got 12. Take 8"):
        run(mesh=mesh("8"), batch_size=12)
    with pytest.raises(ValueError, match="expected one axis, for the batch, or two"):
        run(mesh=Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("a", "b", "c")))
