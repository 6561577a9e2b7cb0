"""Training: the loop does what a loop by hand does, sees every sample, and begins and compiles as promised."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from funcnn.training.input import given_or_shapes, initialize, start
from tests.cases import KEY, WIDEST, largest_gap

X = jax.random.normal(KEY, (10, 3), WIDEST)
Y = jnp.sin(X.sum(axis=1, keepdims=True))
MODEL = fnn.mlp((3, 4, 1), fnn.tanh)
TIGHT = 1e-13 if jnp.float64 == WIDEST else 1e-5


def run(function=fnn.train, **changes):
    settings = {"epochs": 3, "batch_size": 4, "key": KEY, "optimizer": fnn.adam(0.01), "data": (X, Y), "model": MODEL,
                "loss": fnn.mean_squared_error} | changes  # fmt: skip
    return function(**settings)


def test_whole_batch_descent_is_the_textbook_s_loop():
    params, state = MODEL.init(KEY)
    trained = run(optimizer=fnn.sgd(0.1), batch_size=None, params=params, state=state)
    losses = []
    for _ in range(3):
        (value, _), grads = fnn.autodiff_value_and_grad(MODEL, fnn.mean_squared_error)(params, state, (X, Y))
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
        losses.append(value)
    assert largest_gap(trained.params, params) <= TIGHT
    np.testing.assert_allclose(trained.history.loss, losses, rtol=1e-5)


@pytest.mark.parametrize(("batch_size", "steps"), [(None, 1), (1, 10), (4, 3), (5, 2), (10, 1)])
def test_every_epoch_sees_every_sample_once_and_the_short_batch_counts(batch_size, steps):
    """With a learning rate of 0 the epoch's loss is the loss of the whole data, whatever the batches."""
    trained = run(optimizer=fnn.sgd(0.0), batch_size=batch_size)
    assert trained.history.step_loss.shape == (3, steps)
    whole = fnn.evaluate(MODEL, fnn.mean_squared_error, trained.params, trained.state, (X, Y))["loss"]
    np.testing.assert_allclose(trained.history.loss, [whole] * 3, rtol=1e-6)


def test_every_epoch_is_shuffled_afresh():
    losses = run(optimizer=fnn.sgd(0.0), batch_size=1).history.step_loss
    assert not np.array_equal(losses[0], losses[1])
    np.testing.assert_allclose(np.sort(losses[0]), np.sort(losses[1]), rtol=1e-6)


def test_fit_is_train():
    assert largest_gap(run(fnn.fit).params, run().params) == 0
    watched = run(fnn.fit, validation=(X, Y), callbacks=[lambda progress: None])
    assert largest_gap(watched.params, run().params) <= TIGHT
    np.testing.assert_allclose(watched.history.step_loss, run().history.step_loss, rtol=1e-6)


def test_by_hand_and_by_autodiff_train_alike():
    by_hand, by_autodiff = run(epochs=20), run(epochs=20, grad=fnn.autodiff_value_and_grad)
    assert largest_gap(by_hand.params, by_autodiff.params) <= 100 * TIGHT


def test_train_is_pure_under_jit_and_vmap():
    keys = jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(lambda key: run(key=key)))(keys)
    alone = run(key=keys[2])
    assert together.history.loss.shape == (3, 3)
    assert largest_gap(jax.tree.map(lambda leaf: leaf[2], together.params), alone.params) <= 10 * TIGHT


def test_the_same_key_is_the_same_run_to_the_bit_and_another_is_not():
    assert largest_gap(run().params, run().params) == 0
    assert largest_gap(run().params, run(key=jax.random.key(1)).params) > 0


def test_a_second_call_with_equal_arguments_traces_nothing():
    traced = []

    def forward(prediction, target):
        traced.append(isinstance(prediction, jax.core.Tracer))
        return fnn.mean_squared_error.forward(prediction, target)

    loss = fnn.mean_squared_error._replace(forward=forward)

    def call():
        model, optimizer = fnn.mlp([3, 4, 1], activation=fnn.tanh), fnn.adam(learning_rate=0.01)
        return run(fnn.fit, model=model, optimizer=optimizer, loss=loss, validation=(X, Y))

    call()
    assert any(traced)
    traced.clear()
    call()
    assert not any(traced)


def test_training_goes_on_from_given_parameters_and_state():
    model = fnn.mlp((3, 4, 1), normalization=fnn.batch_norm)
    first = run(model=model)
    second = run(model=model, params=first.params, state=first.state)
    assert second.history.loss[0] < first.history.loss[0]
    assert largest_gap(second.state, first.state) > 0


def test_batch_norm_state_moves_in_training_and_is_used_in_prediction():
    model = fnn.serial(fnn.batch_norm(3), fnn.linear(3, 1))
    trained = run(model=model, epochs=200, batch_size=None)
    np.testing.assert_allclose(trained.state[0].mean, X.mean(axis=0), atol=1e-5)
    first = fnn.predict(model, trained.params, trained.state, X[:1])
    np.testing.assert_allclose(fnn.predict(model, trained.params, trained.state, X)[:1], first, atol=1e-6)


def test_dropout_trains_with_a_new_mask_every_step_and_predicts_without():
    model = fnn.serial(fnn.linear(3, 1), fnn.dropout(0.5))
    trained = run(model=model, optimizer=fnn.sgd(0.0), batch_size=None)
    assert len(np.unique(trained.history.loss)) == 3
    once, again = (fnn.predict(model, trained.params, trained.state, X) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_validation_metrics_and_callbacks_of_every_epoch():
    labels = (X[:, 0] > 0).astype(int)
    seen = []
    trained = run(
        fnn.fit, model=fnn.mlp((3, 8, 2)), loss=fnn.softmax_cross_entropy, data=(X, labels), epochs=4,
        validation=(X, labels), metrics={"accuracy": fnn.accuracy}, callbacks=[seen.append],
    )  # fmt: skip
    assert [(progress.epoch, progress.epochs) for progress in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    np.testing.assert_allclose([progress.loss for progress in seen], trained.history.loss, rtol=1e-6)
    assert set(trained.history.validation) == {"loss", "accuracy"}
    np.testing.assert_allclose(
        trained.history.validation["accuracy"], [progress.validation["accuracy"] for progress in seen]
    )
    assert largest_gap(seen[-1].params, trained.params) == 0


def test_any_optax_optimizer_and_any_gradient_function():
    def doubled(model, loss):
        def value_and_grad(params, state, batch, *, key=None):
            aux, grads = fnn.manual_value_and_grad(model, loss)(params, state, batch, key=key)
            return aux, jax.tree.map(lambda g: 2 * g, grads)

        return value_and_grad

    by_double = run(optimizer=optax.sgd(0.1), grad=doubled)
    assert largest_gap(by_double.params, run(optimizer=optax.sgd(0.2)).params) <= TIGHT


def test_numpy_data_and_legacy_keys_are_welcome():
    trained = run(fnn.fit, data=(np.asarray(X), np.asarray(Y)), key=jax.random.PRNGKey(0))
    assert bool(jnp.isfinite(trained.history.loss).all())


def test_learning_reaches_the_target():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]], WIDEST)
    y = jnp.array([[0.0], [1.0], [1.0], [0.0]], WIDEST)
    model = fnn.mlp((2, 8, 1), fnn.tanh)
    trained = fnn.fit(model, fnn.sigmoid_cross_entropy, fnn.adam(0.05), (x, y), epochs=500, key=KEY)
    logits = fnn.predict(model, trained.params, trained.state, x)
    assert fnn.binary_accuracy(logits, y, threshold=0.0) == 1


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_training_in_a_narrow_dtype_stays_in_it(dtype):
    model = fnn.mlp((3, 4, 1), normalization=fnn.batch_norm)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.init(KEY)[0])
    data = (X.astype(dtype), Y.astype(dtype))
    trained = run(fnn.fit, model=model, params=params, data=data, validation=data, optimizer=fnn.sgd(0.1))
    leaves = jax.tree.leaves((trained.params, trained.state, trained.history.step_loss))
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype(dtype)}
    assert bool(jnp.isfinite(trained.history.loss).all())


def test_numpy_integers_are_counts(as_for_users):
    trained = run(epochs=np.int64(2), batch_size=np.int32(5), model=fnn.mlp((np.int64(3), 4, 1)))
    assert trained.history.step_loss.shape == (2, 2)


def test_a_layer_and_a_loss_need_only_the_fields(as_for_users):
    class OwnLayer(NamedTuple):
        init: object
        forward: object
        backward: object

    trained = run(model=fnn.serial(OwnLayer(*fnn.linear(3, 1)[:3]), fnn.tanh))
    assert bool(jnp.isfinite(trained.history.loss).all())


@pytest.mark.thorough
def test_a_loss_that_needs_positive_predictions_is_asked_at_positive_ones():
    def forward(prediction, target):
        if not isinstance(prediction, jax.core.Tracer):
            assert bool((prediction > 0).all())
        return (prediction - target * jnp.log(prediction)).mean(), (prediction, target)

    poisson = fnn.Loss(forward, lambda residuals, dloss: dloss * (1 - residuals[1] / residuals[0]) / residuals[0].size)
    model = fnn.mlp((3, 4, 1), output=fnn.softplus)
    assert bool(jnp.isfinite(run(model=model, loss=poisson, data=(X, jnp.abs(Y))).history.loss).all())
    assert fnn.check_model(model, poisson, (X, jnp.abs(Y))).ok


def test_numpy_labels_under_jit_scan_and_in_metrics():
    labels = np.array([0, 1] * 5)
    model = fnn.mlp((3, 4, 2))

    def final_loss(key):
        return run(model=model, loss=fnn.softmax_cross_entropy, data=(X, labels), key=key).history.loss[-1]

    alone = final_loss(KEY)
    np.testing.assert_allclose(jax.jit(final_loss)(KEY), alone, rtol=1e-5)
    _, scanned = jax.lax.scan(lambda carry, key: (carry, final_loss(key)), 0, KEY[None])
    np.testing.assert_allclose(scanned[0], alone, rtol=1e-5)
    assert jax.jit(lambda z: fnn.accuracy(z, labels))(jnp.eye(2, dtype=WIDEST)[labels]) == 1


def test_a_loss_that_examines_its_predictions_sees_the_model_s():
    def forward(prediction, target):
        if not isinstance(prediction, jax.core.Tracer):
            np.testing.assert_allclose(prediction.sum(axis=1), 1, rtol=1e-5)
        return fnn.categorical_cross_entropy.forward(prediction, target)

    model = fnn.mlp((3, 4, 3), output=fnn.softmax)
    run(model=model, loss=fnn.categorical_cross_entropy._replace(forward=forward), data=(X, jnp.arange(10) % 3))


def test_metrics_may_count():
    labels = jnp.arange(10) % 2
    counted = run(
        fnn.fit, model=fnn.mlp((3, 2)), loss=fnn.softmax_cross_entropy, data=(X, labels), validation=(X, labels),
        metrics={"errors": lambda scores, y: (scores.argmax(axis=1) != y).sum()},
    )  # fmt: skip
    assert counted.history.validation["errors"].shape == (3,)


def test_a_state_may_hold_a_key_and_callbacks_may_come_from_a_generator():
    def forward(params, state, x, *, train, key=None):
        return x, jax.random.split(state)[0], ()

    keyed = fnn.Layer(lambda key: ((), key), forward, lambda residuals, dy: ((), dy))
    seen = []
    run(fnn.fit, model=fnn.serial(keyed, fnn.linear(3, 1)), callbacks=(function for function in [seen.append]))
    assert len(seen) == 3


@pytest.mark.parametrize("hidden", [6, 8])
def test_parameters_are_the_models_own_however_many_there_are(hidden):
    # With their biases seven kernels are drawn by one program, nine array by array.
    model = fnn.mlp((3,) * (hidden + 1) + (2,))
    found, expected = initialize(model, KEY), model.init(KEY)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    assert largest_gap(found, expected) <= TIGHT


def test_a_state_that_is_not_given_is_the_models_own_beside_given_parameters():
    model = fnn.serial(fnn.linear(3, 4), fnn.batch_norm(4), fnn.linear(4, 2))
    params, state = model.init(KEY)
    _, expected_state = given_or_shapes("train", model, params, None)
    found_params, found_state, _ = start(model, jax.random.key(7), params, None, expected_state)
    assert found_params is params
    assert jax.tree.structure(found_state) == jax.tree.structure(state)
    assert largest_gap(found_state, state) == 0
