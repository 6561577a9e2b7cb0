"""Ensembles: each member is the network that its key gives alone, and they are asked together."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.ensembles import predict_ensemble, train_ensemble
from tests.cases import KEY, WIDEST, largest_gap

X = jax.random.normal(KEY, (6, 3), WIDEST)
LABELS = jnp.array([0, 1, 0, 1, 1, 0])
MODEL = fnn.serial(fnn.linear(3, 4), fnn.batch_norm(4), fnn.relu, fnn.dropout(0.2), fnn.linear(4, 2))
MEMBERS = 3
THREE = partial(train_ensemble, MEMBERS)
LINEAR = fnn.linear(3, 2)
TIGHT = 1e-12 if jnp.float64 == WIDEST else 1e-5


def run(function=THREE, **changes):
    settings = {"epochs": 2, "batch_size": 3, "key": KEY, "optimizer": fnn.momentum(0.1), "data": (X, LABELS),
                "model": MODEL, "loss": fnn.softmax_cross_entropy} | changes  # fmt: skip
    return function(**settings)


def test_each_member_is_the_network_of_its_key():
    together = run()
    assert together.history.loss.shape == (MEMBERS, 2)
    assert together.history.step_loss.shape == (MEMBERS, 2, 2)
    for number, key in enumerate(jax.random.split(KEY, MEMBERS)):
        member = jax.tree.map(lambda leaf, number=number: leaf[number], together)
        alone = run(fnn.train, key=key)
        assert jax.tree.structure(member) == jax.tree.structure(alone)
        assert largest_gap(member, alone) <= TIGHT


def test_members_differ():
    kernels = run().params[0].kernel
    assert kernels.shape == (MEMBERS, 3, 4)
    assert len(np.unique(np.asarray(kernels), axis=0)) == MEMBERS


def test_another_gradient_function_trains_alike():
    by_autodiff = run(model=LINEAR, grad=fnn.autodiff_value_and_grad)
    assert largest_gap(run(model=LINEAR), by_autodiff) <= TIGHT


def test_the_prediction_is_the_mean_of_the_members():
    params, state, _, _ = run()
    each = [
        fnn.predict(MODEL, *jax.tree.map(lambda leaf, number=number: leaf[number], (params, state)), X)
        for number in range(MEMBERS)
    ]
    np.testing.assert_allclose(predict_ensemble(MODEL, params, state, X), sum(each) / MEMBERS, rtol=1e-5, atol=1e-6)
    probabilities = predict_ensemble(
        MODEL, params, state, X, average=lambda logits: jax.nn.softmax(logits).mean(axis=0)
    )
    expected = sum(map(jax.nn.softmax, each)) / MEMBERS
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)
    every = predict_ensemble(MODEL, params, state, X, average=jnp.asarray)
    np.testing.assert_allclose(every, jnp.stack(each), rtol=1e-5, atol=1e-6)


def test_a_second_call_with_equal_arguments_traces_nothing():
    traced = []

    def forward(params, state, x, *, train, key=None):
        traced.append(x)
        return fnn.tanh.forward(params, state, x, train=train, key=key)

    own = fnn.tanh._replace(forward=forward)

    def call(key):
        model = fnn.serial(fnn.linear(3, 2), own)
        trained = run(model=model, optimizer=fnn.momentum(learning_rate=0.1), key=key)
        return predict_ensemble(model, trained.params, trained.state, X)

    call(KEY)
    assert traced
    traced.clear()
    call(jax.random.key(1))
    assert not traced


def test_it_is_pure_under_jit():
    under_jit = jax.jit(lambda key: run(model=LINEAR, key=key))(KEY)
    assert largest_gap(under_jit, run(model=LINEAR)) <= TIGHT


def test_numpy_and_lists_are_welcome(as_for_users):
    trained = run(data=(np.asarray(X), LABELS.tolist()), key=KEY)
    assert largest_gap(trained, run()) == 0
    assert predict_ensemble(MODEL, trained.params, trained.state, np.asarray(X)).shape == (6, 2)


BAD_TRAINING = {
    "no member": ({"function": partial(train_ensemble, 0)}, ValueError, r"train_ensemble\(members\): expected a pos"),
    "half a member": ({"function": partial(train_ensemble, 2.5)}, TypeError, r"train_ensemble\(members\): .*2\.5"),
    "no layer": ({"model": fnn.mlp}, TypeError, r"train_ensemble\(model\): expected a layer"),
    "no loss": ({"loss": fnn.accuracy}, TypeError, r"train_ensemble\(loss\): expected a Loss"),
    "no optimizer": ({"optimizer": [0.1]}, TypeError, r"train_ensemble\(optimizer\): expected an optax"),
    "many keys": ({"key": jax.random.split(KEY, 3)}, TypeError, r"train_ensemble\(key\): expected one random key"),
    "no epoch": ({"epochs": 0}, ValueError, r"train_ensemble\(epochs\): expected a positive integer, got 0"),
    "a batch too large": (
        {"batch_size": 7},
        ValueError,
        r"train_ensemble\(batch_size\): expected at most the 6",
    ),
    "a NaN": ({"data": (X.at[0, 1].set(jnp.nan), LABELS)}, ValueError, r"x: expected finite .*nan at index \(0, 1\)"),
    "labels from 1": ({"data": (X, LABELS + 1)}, ValueError, "expected class labels from 0 to 1, got 2"),
    "another width": ({"data": (X[:, :2], LABELS)}, ValueError, r"expected x of shape \(batch, 3\), got \(6, 2\)"),
    "x alone": ({"data": X}, TypeError, r"expected Batch\(x, y\) or \(x, y\)"),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_TRAINING.values(), ids=BAD_TRAINING)
def test_bad_training(changes, error, message, as_for_users):
    with pytest.raises(error, match=message):
        run(**changes)


GOOD = fnn.LinearParams(jnp.ones((4, 3, 2), WIDEST), jnp.ones((4, 2), WIDEST))
BAD_PREDICTION = {
    "no layer": ((fnn.linear, GOOD, (), X), TypeError, r"predict_ensemble\(model\): expected a layer"),
    "one member": (
        (LINEAR, jax.tree.map(lambda leaf: leaf[0], GOOD), (), X),
        ValueError,
        r"predict_ensemble\(params\): expected .* of shape \(3, 3, 2\) at \.kernel, like what train_ensemble returns",
    ),
    "differently many": (
        (LINEAR, GOOD._replace(bias=GOOD.bias[:3]), (), X),
        ValueError,
        r"predict_ensemble\(params\): expected .* of shape \(4, 2\) at \.bias, .*got .* \(3, 2\)",
    ),
    "scalars": (
        (LINEAR, jax.tree.map(lambda leaf: leaf[0, 0], GOOD), (), X), ValueError, r"predict_ensemble\(params\): exp",
    ),
    "another tree": ((LINEAR, (GOOD,), (), X), ValueError, r"predict_ensemble\(params\): expected the tree structure"),
    "a state of its own": ((LINEAR, GOOD, (X,), X), ValueError, r"predict_ensemble\(state\): expected the tree struct"),
    "no parameters": ((fnn.tanh, (), (), X), ValueError, r"predict_ensemble\(params\): .* got none.*use predict"),
    "another width": ((LINEAR, GOOD, (), X[:, :2]), ValueError, r"expected x of shape \(batch, 3\), got \(6, 2\)"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "error", "message"), BAD_PREDICTION.values(), ids=BAD_PREDICTION)
def test_bad_prediction(arguments, error, message, as_for_users):
    with pytest.raises(error, match=message):
        predict_ensemble(*arguments)


def test_an_average_is_a_function(as_for_users):
    with pytest.raises(TypeError, match=r"predict_ensemble\(average\): expected a function, got 'mean'"):
        predict_ensemble(LINEAR, GOOD, (), X, average="mean")
