"""What ``fit`` adds to ``train``: validation, early stopping, accumulation, streams of batches, whoever looks on."""

import json
import struct

import grain.python as grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboardX.proto.event_pb2 import Event

import funcnn as fnn
from tests.cases import KEY, WIDEST, largest_gap
from tests.training.runs import MODEL, STEPS, X, Y, batches, bits, run, stream

TIGHT = 1e-12 if jnp.float64 == WIDEST else 1e-5


def test_whoever_looks_on_changes_no_bit(tmp_path):
    alone = run()
    watched = run(
        validation=fnn.Validation((X, Y), every=2), progress=True,
        callbacks=[fnn.JSONLines(tmp_path / "log.jsonl"), fnn.TensorBoard(tmp_path / "board"), lambda progress: None],
    )  # fmt: skip
    assert bits(watched.params) == bits(alone.params)
    np.testing.assert_array_equal(watched.history.step_loss, alone.history.step_loss)


def test_validation_every_n_epochs_and_after_the_last():
    trained = run(epochs=5, validation=fnn.Validation((X, Y), every=2))
    assert trained.history.validation_epochs.tolist() == [2, 4, 5]
    whole = fnn.evaluate(MODEL, fnn.mean_squared_error, trained.params, trained.state, (X, Y))
    np.testing.assert_allclose(trained.history.validation["loss"][-1], whole["loss"], rtol=1e-6)


def test_early_stopping_returns_the_best_parameters():
    """With a learning rate that falls to climbing, the loss goes down and then up."""
    away = optax.join_schedules([optax.constant_schedule(0.05), optax.constant_schedule(-0.02)], [3 * STEPS])
    kept = []
    trained = run(
        optimizer=fnn.sgd(away), epochs=30, validation=(X, Y), early_stopping=fnn.EarlyStopping(3),
        callbacks=[lambda progress: kept.append((progress.validation["loss"], progress.params))],
    )  # fmt: skip
    figures = [figure for figure, _ in kept]
    best = int(np.argmin(figures))
    assert len(figures) == best + 1 + 3 < 30
    assert trained.history.loss.shape == (len(figures),)
    assert bits(trained.params) == bits(kept[best][1])


def test_early_stopping_by_a_metric_that_should_rise():
    def minus(prediction, target):
        return -((prediction - target) ** 2).mean()

    settings = {"epochs": 8, "validation": (X, Y), "metrics": {"minus": minus}}
    by_loss = run(**settings, early_stopping=fnn.EarlyStopping(2))
    by_metric = run(**settings, early_stopping=fnn.EarlyStopping(2, monitor="minus", mode="max"))
    assert bits(by_loss.params) == bits(by_metric.params)


def test_a_callback_ends_training_by_returning_true():
    trained = run(callbacks=[lambda progress: progress.epoch == 2])
    assert trained.history.loss.shape == (2,)
    assert bits(trained.params) == bits(run(epochs=2).params)


def test_accumulated_gradients_of_two_halves_are_those_of_the_whole():
    model = fnn.mlp((3, 8, 1), fnn.tanh)
    with jax.numpy_dtype_promotion("standard"):  # optax itself promotes
        whole = stream(model=model, data=batches(8)[:2], optimizer=fnn.sgd(0.1), accumulate=2, epochs=3)
    joined = [tuple(np.concatenate(parts) for parts in zip(*batches(8)[:2], strict=True))]
    at_once = stream(model=model, data=joined, optimizer=fnn.sgd(0.1), epochs=3)
    assert largest_gap(whole.params, at_once.params) <= 1e-7  # optax.MultiSteps divides by a float32 count
    assert bits(run(accumulate=1).params) == bits(run().params)


def test_clipping_and_schedules_are_the_optimizer_s():
    clipped = optax.chain(optax.clip_by_global_norm(1e-3), fnn.sgd(optax.constant_schedule(1.0)))
    before = run(epochs=1, optimizer=fnn.sgd(0.0)).params
    moved = jax.tree.map(jnp.subtract, run(epochs=1, optimizer=clipped).params, before)
    length = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(moved)))
    assert 0 < length <= STEPS * 1e-3 * (1 + 1e-5)


class TestStreams:
    def test_a_list_a_function_of_the_epoch_and_a_one_pass_iterator_are_alike(self):
        listed = stream(epochs=2)
        seen = []
        by_epoch = stream(epochs=2, data=lambda epoch: seen.append(epoch) or iter(batches()))
        assert seen == [0, 1]
        assert bits(by_epoch.params) == bits(listed.params)
        assert bits(stream(epochs=1, data=iter(batches())).params) == bits(stream(epochs=1).params)
        assert listed.history.step_loss.shape == (2, 3)

    def test_whole_batches_in_order_are_descent_on_the_data(self):
        """Without shuffling, one batch that holds all is whole-batch descent from memory."""
        model = fnn.mlp((3, 8, 1), fnn.tanh)
        streamed = stream(model=model, data=[(np.asarray(X), np.asarray(Y))])
        assert largest_gap(streamed.params, run(model=model, batch_size=None).params) <= TIGHT

    def test_epochs_of_different_lengths_leave_nan_behind_the_shorter(self):
        trained = stream(epochs=2, data=lambda epoch: batches()[: 3 - epoch])
        assert np.isnan(np.asarray(trained.history.step_loss)).tolist() == [[False] * 3, [False, False, True]]
        assert np.isfinite(np.asarray(trained.history.loss)).all()

    def test_more_batches_than_are_kept_at_once(self):
        small = [(np.asarray(X[i % 22 : i % 22 + 1]), np.asarray(Y[i % 22 : i % 22 + 1])) for i in range(40)]
        trained = stream(model=fnn.mlp((3, 8, 1), fnn.tanh), data=small, epochs=1)
        assert trained.history.step_loss.shape == (1, 40)

    @pytest.mark.thorough
    def test_grain_loads_and_goes_on_where_it_was(self, tmp_path):
        def loader():
            source = grain.MapDataset.range(len(X)).shuffle(seed=1).map(lambda i: (np.asarray(X[i]), np.asarray(Y[i])))
            return source.batch(4).to_iter_dataset()

        whole = stream(data=loader(), epochs=3)
        saved = fnn.Checkpoints(tmp_path / "run", every=4)
        stream(data=loader(), epochs=3, checkpoints=saved, callbacks=[lambda progress: progress.epoch == 1])
        # What stopped by a callback is over; its newest checkpoint inside an epoch is not.
        (last,) = [path for path in (tmp_path / "run").iterdir() if int(path.name) == 6]
        for file in sorted(last.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        last.rmdir()
        assert bits(stream(data=loader(), epochs=3, checkpoints=saved).params) == bits(whole.params)

    def test_a_diverged_run_goes_on_before_the_batch_that_it_broke_on(self, tmp_path):
        """Not behind the stretch that was read by then: the bad batch is met again."""
        good = [(np.asarray(X[i : i + 1]), np.asarray(Y[i : i + 1])) for i in range(20)]
        good[5] = tuple(part * (float(jnp.finfo(WIDEST).max) / 100) for part in good[5])
        model = fnn.mlp((3, 8, 1), fnn.relu)

        class Reader:
            at = 0

            def __iter__(self):
                return self

            def __next__(self):
                if self.at == len(good):
                    raise StopIteration
                self.at += 1
                return good[self.at - 1]

            def get_state(self):
                return {"at": self.at}

            def set_state(self, state):
                self.at = state["at"]

        class Loader:
            def __iter__(self):
                return Reader()

        for _ in range(2):
            with pytest.raises(fnn.DivergenceError) as broken:
                stream(model=model, data=Loader(), epochs=2, checkpoints=fnn.Checkpoints(tmp_path / "run", every=50))
            assert broken.value.step == 6

    def test_validation_from_an_iterable_is_the_mean_over_its_samples(self):
        trained = stream(epochs=1, validation=batches(5), metrics={"largest": lambda p, y: jnp.abs(p - y).mean()})
        whole = fnn.evaluate(MODEL, fnn.mean_squared_error, trained.params, trained.state, (X, Y))
        np.testing.assert_allclose(trained.history.validation["loss"][0], whole["loss"], rtol=1e-5)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"data": []}, "expected an iterable of batches .x, y., got an empty one"),
            ({"data": iter(batches())}, "got an iterator, which is used up"),
            ({"batch_size": 8}, r"fit\(batch_size\): expected none for an iterable"),
            ({"data": lambda epoch: batches() if epoch == 0 else []}, "got none in epoch 2"),
            (
                {"data": [*batches(), (np.asarray(X[:, :2]), np.asarray(Y))]},
                "expected x of every batch like the first's",
            ),
            ({"data": [*batches(), (np.asarray(X) * np.nan, np.asarray(Y))]}, "x of a batch: expected finite values"),
            ({"data": [*batches(), (np.asarray(X), np.asarray(Y)[:3])]}, "a target for each of a batch's 22 samples"),
            ({"data": [np.asarray(X), np.asarray(Y)]}, r"A list is taken for batches: pass data in memory as a tuple"),
            ({"data": [*batches(), None]}, r"expected every batch as \(x, y\), got NoneType"),
            ({"data": lambda epoch: None}, r"expected \(epoch\) -> iterable of batches, got one that returns NoneType"),
            ({"validation": iter(batches())}, "iterable that can be read again"),
            ({"validation": []}, r"fit\(validation\): expected an iterable of batches .x, y., got an empty one"),
            ({"validation": [(np.asarray(X[:, :2]), np.asarray(Y))]}, "expected x of shape"),
        ],
    )
    def test_what_it_refuses(self, as_for_users, changes, message):
        with pytest.raises((ValueError, TypeError), match=message):
            stream(**{"epochs": 2} | changes)

    def test_validation_that_cannot_be_read_again_ends_the_run(self):
        class Once:
            """Its batches are used up by the check before training."""

            def __init__(self):
                self.left = batches()

            def __iter__(self):
                while self.left:
                    yield self.left.pop()

        once = Once()
        with pytest.raises(
            ValueError, match=r"fit\(validation\): expected .* that can be read again, got an empty one"
        ):
            stream(validation=once, callbacks=[lambda progress: None])

    def test_labels_outside_the_classes_are_refused_in_any_batch(self, as_for_users):
        labelled = [(x, np.zeros(len(x), int) + (5 if number == 2 else 0)) for number, (x, _) in enumerate(batches())]
        with pytest.raises(ValueError, match="expected class labels from 0 to 1, got 5"):
            stream(model=fnn.mlp((3, 2)), loss=fnn.softmax_cross_entropy, data=labelled)


def test_the_log_has_a_line_for_every_epoch(tmp_path):
    file = tmp_path / "log.jsonl"
    trained = run(epochs=3, callbacks=[fnn.JSONLines(file)], validation=(X, Y))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 3), (2, 6), (3, 9)]
    np.testing.assert_allclose([line["loss"] for line in lines], trained.history.loss, rtol=1e-6)
    np.testing.assert_allclose(
        [line["validation"]["loss"] for line in lines], trained.history.validation["loss"], rtol=1e-6
    )


def test_what_is_not_finite_is_null_in_the_log(tmp_path):
    file = tmp_path / "log.jsonl"
    run(epochs=1, callbacks=[fnn.JSONLines(file)], validation=(X, Y), metrics={"lost": lambda p, y: p.mean() * jnp.nan})
    (line,) = file.read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["validation"]["lost"] is None


def test_tensorboard_finds_the_scalars(tmp_path):
    trained = run(epochs=2, callbacks=[fnn.TensorBoard(tmp_path)], validation=(X, Y))
    (file,) = tmp_path.iterdir()
    found = {
        (value.tag, event.step): value.simple_value for event in events(file) for value in event.summary.value
    }  # fmt: skip
    assert set(found) == {("loss", 3), ("loss", 6), ("validation/loss", 3), ("validation/loss", 6)}
    np.testing.assert_allclose(found["loss", 6], trained.history.loss[1], rtol=1e-6)


def events(file):
    """The records of an event file: a length, its checksum, the event, its checksum."""
    content, place = file.read_bytes(), 0
    while place < len(content):
        (length,) = struct.unpack("<Q", content[place : place + 8])
        yield Event.FromString(content[place + 12 : place + 12 + length])
        place += length + 16


def test_the_bar_shows_epoch_loss_and_rate(capsys):
    run(epochs=2, progress=True, validation=(X, Y))
    shown = capsys.readouterr().out
    assert "epoch 2/2" in shown
    assert "loss" in shown


def early_stopping(*settings, **more):
    return {"early_stopping": fnn.EarlyStopping(*settings, **more), "validation": (X, Y)}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"validation": fnn.Validation((X, Y), every=0)},
            ValueError,
            r"Validation\(every\): expected a positive integer",
        ),
        (
            {"validation": fnn.Validation((X, Y), every=2.5)},
            TypeError,
            r"Validation\(every\): expected a positive integer",
        ),
        (
            {"early_stopping": fnn.EarlyStopping(2)},
            ValueError,
            r"fit\(early_stopping\): expected validation data, got none",
        ),
        ({"early_stopping": 2, "validation": (X, Y)}, TypeError, r"expected EarlyStopping\(patience\) or None, got 2"),
        (early_stopping(0), ValueError, r"EarlyStopping\(patience\): expected a positive integer, got 0"),
        (early_stopping(1.5), TypeError, r"EarlyStopping\(patience\): expected a positive integer, got 1.5"),
        (early_stopping(1, "accuracy"), ValueError, r"EarlyStopping\(monitor\): expected one of .*got 'accuracy'"),
        (early_stopping(1, mode="more"), ValueError, r"EarlyStopping\(mode\): expected 'min' or 'max', got 'more'"),
        ({"metrics": {"first": fnn.accuracy}}, ValueError, r"fit\(metrics\): expected validation data"),
        ({"accumulate": 1.5}, TypeError, r"fit\(accumulate\): expected a positive integer"),
        ({"checkpoints": 3}, TypeError, r"fit\(checkpoints\): expected a folder"),
        ({"checkpoints": fnn.Checkpoints("x", every=0)}, ValueError, r"Checkpoints\(every\)"),
        ({"checkpoints": fnn.Checkpoints("x", damaged="ignore")}, ValueError, "expected 'refuse' or 'previous'"),
        ({"checkpoints": __file__}, ValueError, "expected a folder, got the file"),
        ({"checkpoints": fnn.Checkpoints(3)}, TypeError, r"Checkpoints\(folder\): expected a path, got 3"),
        (
            {"callbacks": [fnn.JSONLines("no/such/log.jsonl")]},
            ValueError,
            r"JSONLines\(path\): expected a file in an existing",
        ),
        ({"callbacks": [fnn.JSONLines(".")]}, ValueError, r"JSONLines\(path\): expected a file in an existing"),
        ({"callbacks": [fnn.JSONLines]}, TypeError, "expected JSONLines with its path, got the class itself"),
        ({"callbacks": [fnn.TensorBoard]}, TypeError, "expected TensorBoard with its path, got the class itself"),
        ({"callbacks": [fnn.JSONLines(3)]}, TypeError, r"JSONLines\(path\): expected a path, got 3"),
        ({"callbacks": [fnn.TensorBoard(None)]}, TypeError, r"TensorBoard\(folder\): expected a path, got None"),
        (
            {"callbacks": [fnn.TensorBoard(__file__)]},
            ValueError,
            r"TensorBoard\(folder\): expected a folder, got the file",
        ),
        ({"callbacks": [fnn.JSONLines("a"), fnn.JSONLines("./a")]}, ValueError, "expected one JSONLines for each path"),
        ({"callbacks": [fnn.TensorBoard("a"), fnn.TensorBoard("a")]}, ValueError, "expected one TensorBoard for each"),
        (
            {"callbacks": fnn.JSONLines("a")},
            TypeError,
            r"fit\(callbacks\): expected a sequence of functions, JSONLines",
        ),
        ({"callbacks": print}, TypeError, r"fit\(callbacks\): expected a sequence of functions, JSONLines"),
        ({"callbacks": 3}, TypeError, r"fit\(callbacks\): expected a sequence of functions, JSONLines"),
        ({"callbacks": ["log.jsonl"]}, TypeError, r"fit\(callbacks\): expected a function, got 'log.jsonl'"),
        ({"metrics": {1: fnn.accuracy}, "validation": (X, Y)}, TypeError, "expected names that are strings, got 1"),
        ({"mesh": "gpu"}, TypeError, r"fit\(mesh\): expected a jax.sharding.Mesh"),
    ],
)
def test_what_it_refuses_before_anything_is_drawn(as_for_users, changes, error, message):
    def init(key):
        pytest.fail("the model was initialized before the arguments were checked")

    with pytest.raises(error, match=message):
        run(**{"model": MODEL._replace(init=init)} | changes)


def test_the_removed_arguments_are_gone():
    for name in ("patience", "watch", "better", "log", "tensorboard", "validate_every"):
        with pytest.raises(TypeError, match=name):
            run(**{name: 1})


def test_under_jit_it_is_train_unless_somebody_looks_on():
    def final(key, **changes):
        return run(model=fnn.mlp((3, 8, 1), fnn.tanh), key=key, **changes).history.loss[-1]

    np.testing.assert_allclose(jax.jit(final)(KEY), final(KEY), rtol=1e-5)
    with pytest.raises(ValueError, match=r"under jit and vmap no epoch ends\. Use train"):
        jax.jit(lambda key: final(key, validation=(X, Y)))(KEY)
