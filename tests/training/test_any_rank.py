"""Inputs and targets of any rank: tokens ``(batch, time)`` with labels for each, and sequences of features."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST, largest_gap

CLASSES = 3
VOCABULARY = 5000
TOKENS = jax.random.randint(KEY, (10, 4), 0, VOCABULARY)
LABELS = TOKENS % CLASSES
SEQUENCES = jax.random.normal(KEY, (10, 4, 2), WIDEST)


def _table_init(key):
    return jax.random.normal(key, (VOCABULARY, CLASSES), WIDEST), ()


def _table_forward(params, state, x, *, train, key=None):
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise TypeError(f"table: expected tokens of an integer dtype, got {x.dtype}.")
    return params[x], state, (x, params)


def _table_backward(residuals, dy):
    x, params = residuals
    return jnp.zeros_like(params).at[x].add(dy), None


def _weights_init(key):
    return jax.random.normal(key, (2, CLASSES), WIDEST), ()


def _weights_forward(params, state, x, *, train, key=None):
    return x @ params, state, (x, params)


def _weights_backward(residuals, dy):
    x, params = residuals
    return jnp.einsum("...i,...j->ij", x, dy), dy @ params.T


TABLE = fnn.Layer(_table_init, _table_forward, _table_backward)
WEIGHTS = fnn.Layer(_weights_init, _weights_forward, _weights_backward)
LOSS = fnn.softmax_cross_entropy


def right(prediction, target):
    return (prediction.argmax(axis=-1) == target).mean(dtype=prediction.dtype)


def run(function=fnn.fit, **changes):
    settings = {"model": TABLE, "loss": LOSS, "optimizer": fnn.sgd(1.0), "data": (TOKENS, LABELS), "epochs": 3,
                "batch_size": 4, "key": KEY} | changes  # fmt: skip
    return function(**settings)


@pytest.mark.parametrize(("model", "x"), [(TABLE, TOKENS), (WEIGHTS, SEQUENCES)], ids=["tokens", "sequences"])
def test_train_fit_predict_and_evaluate(model, x):
    data = (x, LABELS)
    trained = run(fnn.train, model=model, data=data)
    fitted = run(model=model, data=data, validation=data, metrics={"right": right})
    assert largest_gap(fitted.params, trained.params) <= 1e-6
    assert trained.history.loss[-1] < trained.history.loss[0]
    assert fnn.predict(model, trained.params, trained.state, x).shape == (10, 4, CLASSES)
    measured = fnn.evaluate(model, LOSS, fitted.params, fitted.state, data, metrics={"right": right})
    for name, figure in measured.items():
        np.testing.assert_allclose(fitted.history.validation[name][-1], figure, rtol=1e-6)


def test_batches_of_tokens():
    whole = [(np.asarray(TOKENS), np.asarray(LABELS))]
    streamed = run(data=whole, batch_size=None, validation=whole)
    assert largest_gap(streamed.params, run(batch_size=None).params) <= 1e-6
    assert streamed.history.validation["loss"].shape == (3,)


def test_checkpoints_of_tokens(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    run(epochs=2, checkpoints=tmp_path)
    assert largest_gap(run(checkpoints=tmp_path).params, run().params) == 0


def test_divergence_does_not_advise_to_scale_tokens():
    with pytest.raises(fnn.DivergenceError) as caught:
        run(optimizer=optax.scale(float(jnp.finfo(WIDEST).max)), epochs=20)
    assert "standard_scaler" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": (SEQUENCES[..., 0], LABELS)}, "table: expected tokens of an integer dtype, got float"),
        ({"data": (TOKENS[:0], LABELS[:0])}, r"fit\(data\): x: expected at least one sample, got shape \(0, 4\)"),
        ({"data": (3, 1)}, r"fit\(data\): x: expected x with the batch as its first axis, got a scalar"),
        ({"data": (TOKENS, LABELS[:9])}, r"a target for each of the 10 samples, got x \(10, 4\) and y \(9, 4\)"),
        (
            {"model": WEIGHTS, "data": (SEQUENCES.at[1, 2, 0].set(jnp.nan), LABELS)},
            r"fit\(data\): x: expected finite values, got nan at index \(1, 2, 0\)",
        ),
    ],
)
def test_what_it_refuses(as_for_users, changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        run(**changes)


def _known_tokens(x):
    if not isinstance(x, jax.core.Tracer) and np.asarray(x).max() >= VOCABULARY:
        raise ValueError(f"table: expected tokens from 0 to {VOCABULARY - 1}, got {np.asarray(x).max()}.")
    return x


CHECKED = TABLE._replace(
    forward=lambda params, state, x, **mode: _table_forward(params, state, _known_tokens(x), **mode)
)
UNKNOWN = TOKENS.at[2, 1].set(VOCABULARY)


@pytest.mark.parametrize(
    ("function", "changes", "argument"),
    [
        (fnn.train, {"data": (UNKNOWN, LABELS)}, r"train\(data\)"),
        (fnn.fit, {"data": (UNKNOWN, LABELS)}, r"fit\(data\)"),
        (fnn.fit, {"validation": (UNKNOWN, LABELS)}, r"fit\(validation\)"),
        (functools.partial(fnn.train_ensemble, 2), {"data": (UNKNOWN, LABELS)}, r"train_ensemble\(data\)"),
    ],
)
@pytest.mark.parametrize("wrap", [lambda layer: layer, fnn.serial, fnn.recompute, fnn.mixed_precision])
def test_values_that_only_concrete_arrays_show_are_checked_before_anything_is_compiled(
    as_for_users, monkeypatch, function, changes, argument, wrap
):
    def compiled(*arguments, **settings):
        raise AssertionError("compiled before the data were checked")

    for name in ("training.input.initialize", "training.input.forward", "ensembles.initialize"):
        monkeypatch.setattr(f"funcnn.{name}", compiled)
    with pytest.raises(ValueError, match=argument + ": .*table: expected tokens from 0 to 4999, got 5000"):
        run(function, model=wrap(CHECKED), **changes)


def test_unknown_tokens_are_seen_after_known_ones(as_for_users):
    trained = run(model=CHECKED)
    with pytest.raises(ValueError, match=r"fit\(data\): table: expected tokens"):
        run(model=CHECKED, data=(UNKNOWN, LABELS))
    with pytest.raises(ValueError, match=r"predict\(x\): table: expected tokens"):
        fnn.predict(CHECKED, trained.params, trained.state, UNKNOWN)
    with pytest.raises(ValueError, match=r"evaluate\(data\): table: expected tokens"):
        fnn.evaluate(CHECKED, LOSS, trained.params, trained.state, (UNKNOWN, LABELS))
    batches = [(np.asarray(TOKENS), np.asarray(LABELS)), (np.asarray(UNKNOWN), np.asarray(LABELS))]
    with pytest.raises(ValueError, match=r"fit\(data\): a batch: table: expected tokens"):
        run(model=CHECKED, data=batches, batch_size=None)


def test_what_predict_refuses(as_for_users):
    with pytest.raises(ValueError, match=r"predict\(x\): expected at least one sample, got shape \(0, 4\)"):
        fnn.predict(TABLE, *TABLE.init(KEY), TOKENS[:0])


def test_targets_are_checked_in_parts_where_the_predictions_are_large(monkeypatch):
    shapes = []

    def forward(prediction, target):
        if not isinstance(prediction, jax.core.Tracer):
            shapes.append((prediction.shape, target.shape))
        return LOSS.forward(prediction, target)

    monkeypatch.setattr("funcnn.training.input.PROBE_SIZE", 4 * 4 * CLASSES)
    run(loss=fnn.Loss(forward, LOSS.backward), epochs=1)
    assert shapes == [((4, 4, CLASSES), (4, 4)), ((4, 4, CLASSES), (4, 4)), ((2, 4, CLASSES), (2, 4))]
