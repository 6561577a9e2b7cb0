"""Divergence: training stops at the first loss that isn't finite, and says where, what had grown and what to try."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.training.divergence import Largest, Sizes, are_finite, divergence_message, last_finite
from funcnn.training.steps import Carry
from tests.training.runs import X, Y, batches, run, stream

MODEL = fnn.mlp((3, 8, 1))


def diverged(function=run, **changes):
    with pytest.raises(fnn.DivergenceError) as caught:
        function(**{"model": MODEL, "optimizer": fnn.sgd(1e4), "epochs": 30} | changes)
    return caught.value


@pytest.mark.parametrize("function", [run, stream])
def test_the_step_before_is_the_last_finite_one(function):
    error = diverged(function)
    done = error.step - 1
    losses = np.asarray(error.trained.history.step_loss).ravel()
    assert np.isfinite(losses[~np.isnan(losses)]).all()
    assert np.isfinite(losses).sum() == done
    assert error.epoch == done // 3 + 1
    assert are_finite(error.trained.params)
    assert f"at step {error.step}, in epoch {error.epoch}" in str(error)
    assert "a smaller learning rate" in str(error)
    assert error.activation.name in ("layers[0] linear", "layers[1] relu", "layers[2] linear")
    assert error.gradient.name in str(error)
    assert error.parameter.value == max(
        float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(error.trained.params)
    )  # fmt: skip


def test_an_update_that_is_not_finite_is_noticed_before_its_loss():
    def grad(model, loss):
        def value_and_grad(params, state, batch, *, key=None):
            aux, gradients = fnn.manual_value_and_grad(model, loss)(params, state, batch, key=key)
            return aux, jax.tree.map(lambda g: g / 0, gradients)

        return value_and_grad

    error = diverged(grad=grad, optimizer=fnn.sgd(0.1), epochs=1, batch_size=None)
    assert error.step == 1
    assert "its update isn't finite" in str(error)
    assert error.trained.history.step_loss.size == 0


def test_remedies_fit_the_case():
    assert "standard_scaler; the largest is" in str(diverged(data=(X * 1e30, Y)))
    assert "logits" not in str(diverged())
    sizes = Sizes(np.nan, 1.0, Largest("layers[0] linear", 2.0), Largest("[0].kernel", 1.0), Largest("[0].kernel", 1.0))
    assert "a loss on logits instead of probabilities" in divergence_message(fnn.binary_cross_entropy, sizes, 3, 1)


def test_the_last_finite_parameters_are_in_the_checkpoint(tmp_path):
    error = diverged(checkpoints=tmp_path)
    assert str(error.step - 1) in {path.name.lstrip("0") for path in tmp_path.iterdir()}
    # Called again, the run goes on from there, and says the same.
    assert diverged(checkpoints=tmp_path).step == error.step


def test_layers_inside_are_named():
    model = fnn.serial(fnn.linear(3, 4), fnn.repeat(fnn.skip(fnn.linear(4, 4)), 3), fnn.linear(4, 1))
    error = diverged(model=model)
    assert error.activation.name.startswith(("layers[0] linear", "layers[1].repeat[", "layers[2] linear"))


def test_streams_can_do_their_steps_again_after_many_batches():
    many = batches(8) * 20
    error = diverged(stream, data=many, optimizer=fnn.sgd(60.0), epochs=5)
    assert are_finite(error.trained.params)


def test_a_model_without_parameters_diverges_too():
    error = diverged(model=fnn.tanh, data=(X[:, :1], 10 * Y * jnp.sqrt(jnp.finfo(Y.dtype).max)))
    assert error.step == 1
    assert "the loss is inf" in str(error)
    assert "the largest gradient 0 in nothing, the largest parameter 0 in nothing" in str(error)


def test_a_state_that_begins_infinite_may_stay_so():
    """The largest input so far begins at −∞."""

    def forward(params, state, x, *, train, key=None):
        return x, state, ()

    largest = fnn.Layer(lambda key: ((), jnp.array(-jnp.inf)), forward, lambda residuals, dy: ((), dy))
    trained = run(model=fnn.serial(largest, fnn.linear(3, 1)))
    assert np.isneginf(trained.state[0])
    assert trained.history.loss.shape == (6,)


@pytest.mark.parametrize("broken", [12, 21, 36])
def test_the_newest_finite_step_is_found_in_few_repetitions(broken):
    """``broken`` is the first position whose parameters are not finite, among those from 11 to 36."""
    asked = []

    def replay(carry, start, stop):
        assert carry.state == start
        asked.append((start, stop))
        return Carry(jnp.array(jnp.nan if stop >= broken else 1.0), stop, ())

    carry, position = last_finite(replay, Carry(jnp.array(1.0), 11, ()), 11, 36)
    assert (position, carry.state) == (broken - 1, broken - 1)
    assert len(asked) <= 6
    carry, position = last_finite(replay, carry, position, broken - 1)
    assert position == broken - 1
