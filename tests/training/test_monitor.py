"""``fit(monitor=…)``: figures taken on the way, whatever cuts the run, and what they say at the end."""

import json

import jax
import numpy as np
import pytest

import funcnn as fnn
from funcnn.health.measures import monitored_value_and_grad
from tests.cases import KEY, largest_gap
from tests.training.runs import X, Y, bits, run, stream


@pytest.mark.parametrize("function", [run, stream])
def test_every_nth_step_is_measured_and_training_is_the_same(function):
    watched, alone = function(monitor=4), function()
    record = watched.history.health.record
    assert record.steps.tolist() == [0, 4, 8, 12, 16]
    assert record.measures.spread.shape == (5, len(record.names)) == record.update_ratios.shape
    assert largest_gap(watched.params, alone.params) <= 1e-6
    np.testing.assert_array_equal(record.step_losses, np.asarray(watched.history.step_loss).ravel())
    assert alone.history.health is None


def test_the_history_keeps_no_array_of_jax_alive():
    alive = []
    run(monitor=4, epochs=6, validation=(X, Y), callbacks=[lambda progress: alive.append(len(jax.live_arrays()))])
    assert len(set(alive[1:])) == 1


def test_the_figures_are_those_of_the_step():
    """The first step of a whole-batch run, whose parameters and batch are known."""
    model = fnn.mlp((3, 8, 1), fnn.tanh)
    params, state = model.init(KEY)
    record = run(model=model, params=params, state=state, batch_size=None, epochs=2, monitor=1).history.health.record
    _, _, expected = monitored_value_and_grad(model, fnn.mean_squared_error)(params, state, (X, Y))
    for name, figures in expected._asdict().items():
        np.testing.assert_allclose(getattr(record.measures, name)[0], figures, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.thorough
def test_any_gradient_function_is_monitored():
    by_autodiff = run(monitor=4, grad=fnn.autodiff_value_and_grad).history.health.record
    by_hand = run(monitor=4).history.health.record
    for name in ("spread", "cotangent", "gradient_norm"):  # at the first step, before Adam scales rounding up
        of_autodiff, of_hand = getattr(by_autodiff.measures, name)[0], getattr(by_hand.measures, name)[0]
        np.testing.assert_allclose(of_autodiff, of_hand, rtol=1e-3, atol=1e-6)


@pytest.mark.thorough
def test_a_run_that_was_cut_has_its_whole_record(tmp_path):
    saved = fnn.Checkpoints(tmp_path, every=5)
    with pytest.raises(ZeroDivisionError):
        run(monitor=4, checkpoints=saved, callbacks=[lambda progress: 1 // (3 - progress.epoch) < 0])
    # With a callback the steps are compiled once for both parts.
    resumed, whole = run(monitor=4, checkpoints=saved, callbacks=[lambda progress: None]), run(monitor=4)
    assert bits(resumed[:3]) == bits(whole[:3])
    assert resumed.history.health.record.steps.tolist() == whole.history.health.record.steps.tolist()
    assert bits(resumed.history.health.record.measures) == bits(whole.history.health.record.measures)


def test_a_faulty_run_is_reported_and_so_is_one_that_diverged():
    slow = run(model=fnn.mlp((3, 8, 1)), optimizer=fnn.sgd(1e-9), epochs=20, monitor=2)
    assert "learning rate too low" in {finding.kind for finding in slow.history.health.findings}
    assert not slow.history.health.ok
    with pytest.raises(fnn.DivergenceError) as caught:
        run(model=fnn.mlp((3, 8, 1)), optimizer=fnn.sgd(1e4), monitor=1)
    assert "learning rate too high" in {finding.kind for finding in caught.value.trained.history.health.findings}


@pytest.mark.thorough
def test_a_repeated_layer_has_a_row_for_each_repetition():
    model = fnn.serial(fnn.linear(3, 4), fnn.repeat(fnn.serial(fnn.linear(4, 4), fnn.tanh), 3), fnn.linear(4, 1))
    record = run(model=model, monitor=8).history.health.record
    assert record.names[3] == "layers[1].repeat[1].layers[0] linear"
    assert record.measures.mean.shape[1] == len(record.names) == 8


def test_an_iterable_sorted_by_class_is_reported_and_a_shuffled_one_is_not():
    labels = np.repeat(np.arange(2), 11)
    mixed = np.tile(np.arange(2), 11)
    for classes, is_sorted in ((labels, True), (mixed, False)):
        batches = [(np.asarray(X[i : i + 8]), classes[i : i + 8]) for i in range(0, 22, 8)]
        health = stream(
            model=fnn.mlp((3, 8, 2)), loss=fnn.softmax_cross_entropy, data=batches, epochs=4, monitor=1
        ).history.health
        assert any("lies between the batches" in finding.sentence for finding in health.findings) is is_sorted
        assert health.record.target.balance.tolist() == [0.5, 0.5]


def test_without_the_monitor_a_loss_that_rose_is_a_warning():
    settings = {"model": fnn.linear(3, 1), "optimizer": fnn.sgd(1.2), "epochs": 3}
    with pytest.warns(UserWarning, match=r"fit: the loss rose, from .* Divide the learning rate by 10"):
        run(**settings)


def test_what_it_refuses(as_for_users):
    with pytest.raises(ValueError, match=r"fit\(monitor\): expected a positive integer, got 0"):
        run(monitor=0)
    with pytest.raises(TypeError, match=r"fit\(monitor\)"):
        run(monitor="yes")


def test_the_report_is_text_and_data():
    health = run(monitor=4, epochs=2).history.health
    data = health.to_dict()
    assert json.loads(health.to_json()) == data
    assert set(data) == {"ok", "findings", "record"}
    assert np.shape(data["record"]["update_ratios"]) == health.record.update_ratios.shape
    assert health.to_text() == str(health)
