"""How runs end before their last step, what they leave, and what can't end them."""

import contextlib
import os
import signal
import sys
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.training.batches import ArrayBatches
from funcnn.training.interrupts import Interrupts
from funcnn.training.pace import KEPT, MOST_SECONDS, SECONDS, Pace, first_pace
from funcnn.training.results import empty_history
from tests.cases import KEY
from tests.training.runs import MODEL, X, Y, batches, bits, run, stream

STOPS = [lambda progress: None]


def signal_soon(number, seconds=0.3):
    """Send a signal to this process from another thread."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


@pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_plain_run_leaves_soon_with_its_result(number, leaves, monkeypatch):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    run_stretch, sent = ArrayBatches.run, []

    def signal_after_the_first(self, *given, **settings):
        """Send the signal while training, and not while the step is compiled."""
        stretch = run_stretch(self, *given, **settings)
        if not sent:
            sent.append((time.monotonic(), signal_soon(number)))
        return stretch

    monkeypatch.setattr(ArrayBatches, "run", signal_after_the_first)
    with pytest.raises(leaves) as caught:
        run(epochs=300_000)
    start, timer = sent[0]
    timer.join()
    assert time.monotonic() - start < 0.3 + 3
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    losses = caught.value.trained.history.step_loss
    assert np.isfinite(np.asarray(losses)).any()
    assert ".trained" in caught.value.__notes__[0]


def test_a_compilation_is_not_waited_for(monkeypatch):
    """It goes on in its thread, and the result carries the parameters before the first step."""
    begins, ends = threading.Event(), threading.Event()

    class Slow:
        def compile(self):
            begins.set()
            ends.wait(60)

    class Function:
        @staticmethod
        def lower(*arguments, **settings):
            return Slow()

    monkeypatch.setattr("funcnn.training.batches.run_steps", Function)
    sender = threading.Thread(target=lambda: (begins.wait(60), os.kill(os.getpid(), signal.SIGINT)))
    sender.start()
    start, params = time.monotonic(), MODEL.init(KEY)[0]
    with pytest.raises(KeyboardInterrupt, match="before its first step") as caught:
        run(params=params, batch_size=11)
    assert time.monotonic() - start < 30
    ends.set()
    sender.join()
    assert bits(caught.value.trained.params) == bits(params)
    assert caught.value.trained.history.loss.shape == (0,)


def test_a_signal_before_the_loop_ends_the_run(monkeypatch):
    def slow(*given):
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the signal came too late")

    monkeypatch.setattr(sys.modules["funcnn.training.fit"], "initial_state", slow)  # fit is the function's name, too
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="before its first step") as caught:
        run()
    assert caught.value.trained is None
    assert signal.getsignal(signal.SIGINT) is before


def test_threads_of_signals_return_and_raise():
    interrupts = Interrupts()
    with interrupts.deferred():
        assert interrupts.in_thread(lambda: threading.current_thread()) is not threading.main_thread()
        with pytest.raises(LookupError, match="mine"):
            interrupts.in_thread(lambda: {}["mine"])
        with pytest.raises(KeyboardInterrupt), interrupts.at_once():
            signal.raise_signal(signal.SIGINT)
    assert Interrupts().in_thread(threading.current_thread) is threading.main_thread()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_during_a_destructor_is_not_lost():
    class Destroyed:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)  # the error of the handler is ignored here

    interrupts, computed = Interrupts(), []
    with interrupts.deferred(), pytest.raises(KeyboardInterrupt), interrupts.at_once():
        Destroyed()
    with pytest.raises(KeyboardInterrupt):
        interrupts.in_thread(lambda: computed.append(1))
    assert not computed


def test_a_result_is_made_without_compilation(caplog):
    steps = 37  # a length that no other test has compiled for
    history = empty_history()._replace(losses=[np.ones(steps)], sizes=[np.ones(steps, np.int32)], ends=[steps - 2])
    history.validation["loss"] = [np.float32(1.0), np.float32(0.5)]
    with jax.log_compiles():
        finished = history.finish(), empty_history().finish()
    assert [len(kept.loss) for kept in finished] == [2, 0]
    assert not [record.message for record in caplog.records if "ompil" in record.message]


def test_waiting_code_of_the_user_is_left_at_once():
    def wait(progress=None):
        signal_soon(signal.SIGINT)
        time.sleep(60)

    def slow():
        yield from batches()
        wait()

    class Waiting:
        """Batches that are read once without waiting, before training."""

        read = 0

        def __iter__(self):
            Waiting.read += 1
            yield batches()[0]
            if Waiting.read > 1:
                wait()

    for settings in ({"data": lambda epoch: slow()}, {"callbacks": [wait]}, {"validation": Waiting()}):
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt) as caught:
            stream(**settings)
        assert time.monotonic() - start < 40
        assert caught.value.trained.history is not None


def test_the_error_of_a_callback_ends_the_run_with_its_result():
    def fail(progress):
        if progress.epoch == 2:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        run(callbacks=[fail])
    assert bits(caught.value.trained.params) == bits(run(epochs=2, callbacks=STOPS).params)
    assert caught.value.trained.history.loss.shape == (2,)
    assert ".trained" in caught.value.__notes__[0]


def test_an_error_has_one_result_that_of_the_run_it_comes_from():
    def fail(progress):
        raise LookupError("mine")

    def train_another(progress):
        run(epochs=4, callbacks=[fail])

    with pytest.raises(LookupError, match="mine") as caught:
        run(callbacks=[lambda progress: train_another(progress) if progress.epoch == 3 else None])
    assert caught.value.trained.history.loss.shape == (1,)
    assert len(caught.value.__notes__) == 1


def test_an_error_that_takes_no_result_comes_as_it_is():
    class OwnError(Exception):
        @property
        def trained(self):
            return None

    def fail(progress):
        raise OwnError("mine")

    with pytest.raises(OwnError, match="mine") as caught:
        run(callbacks=[fail])
    assert not hasattr(caught.value, "__notes__")


def test_an_exit_of_the_model_s_own_code_is_left_as_it_is():
    def init(key):
        sys.exit("no licence")

    with pytest.raises(SystemExit, match=r"^no licence$") as caught:
        run(model=MODEL._replace(init=init))
    assert not hasattr(caught.value, "trained")


def test_an_error_in_the_first_validation_takes_the_step_before_it_back():
    class Failing:
        """Batches that are read once without an error, before training."""

        read = 0

        def __iter__(self):
            Failing.read += 1
            yield batches()[0]
            if Failing.read > 1:
                raise LookupError("mine")

    params = MODEL.init(jax.random.key(5))[0]
    with pytest.raises(LookupError, match="mine") as caught:
        run(validation=Failing(), monitor=True, params=params, batch_size=None)
    trained = caught.value.trained
    assert bits(trained.params) == bits(params)
    assert trained.history.loss.shape == (0,)
    assert trained.history.validation == {}


def test_the_error_of_a_stream_ends_the_run_with_its_result():
    def source(epoch):
        yield from batches()
        if epoch == 1:
            raise LookupError("mine")

    with pytest.raises(LookupError) as caught:
        stream(data=source)
    assert np.isfinite(np.asarray(caught.value.trained.history.loss[0]))


def test_errors_of_runs_are_of_one_class():
    assert issubclass(fnn.DivergenceError, fnn.RunError)
    assert issubclass(fnn.DivergenceError, FloatingPointError)
    assert issubclass(fnn.CheckpointError, fnn.RunError)
    assert issubclass(fnn.CheckpointError, ValueError)


def test_a_save_that_fails_is_tried_again(tmp_path):
    folder = tmp_path / "run"

    def away(progress):
        if progress.epoch == 2:  # a file in the place of the folder, which a save in flight may make again
            for number in range(10):
                folder.rename(tmp_path / f"away{number}")
                with contextlib.suppress(IsADirectoryError):
                    folder.write_text("")
                    break
        elif progress.epoch == 4:
            folder.unlink()

    with pytest.warns(UserWarning, match="expected to save in .* the next save tries again"):
        trained = run(checkpoints=folder, callbacks=[away])
    assert bits(trained) == bits(run(callbacks=STOPS))
    assert bits(run(checkpoints=folder)) == bits(trained)


def test_a_last_save_that_fails_is_an_error_with_the_result(tmp_path):
    folder = tmp_path / "run"

    def away(progress):
        if progress.epoch == 1:
            folder.rename(tmp_path / "away")
            folder.write_text("")

    with pytest.raises(fnn.CheckpointError, match=r"The run is complete, and its result is in .*\.trained") as caught:
        run(epochs=1, checkpoints=folder, callbacks=[away])
    assert bits(caught.value.trained) == bits(run(epochs=1, callbacks=STOPS))


def test_runs_in_threads_are_those_outside(tmp_path):
    results = {}

    def go(number):
        results[number] = run(epochs=3, validation=(X, Y), checkpoints=tmp_path / str(number))

    whole = run(epochs=3, validation=(X, Y), checkpoints=tmp_path / "alone")
    x64 = jax.config.jax_enable_x64
    threads = [threading.Thread(target=go, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert x64 == jax.config.jax_enable_x64
    assert [bits(results[number]) == bits(whole) for number in range(4)] == [True] * 4


@pytest.mark.parametrize("answer", [jnp.array(True), np.array([True]), np.bool_(True)])
def test_answers_are_taken_by_truth(answer):
    assert run(callbacks=[lambda progress: answer]).history.loss.shape == (1,)
    others = [lambda progress: np.zeros(1, bool), lambda progress: jnp.array(False), lambda progress: 0, str]
    assert run(epochs=2, callbacks=others).history.loss.shape == (2,)


@pytest.mark.parametrize("answer", [1, 0.5, np.int64(3), jnp.array([2])])
def test_a_number_does_not_end_training_and_is_reported(answer):
    with pytest.warns(UserWarning, match="got a number, .*, which does not end training. Return None to go on"):
        assert run(epochs=2, callbacks=[lambda progress: answer]).history.loss.shape == (2,)


class Awaitable:
    def __await__(self):
        yield


def test_answers_without_a_truth_are_refused_with_the_result():
    async def later(progress):
        return True

    with pytest.raises(TypeError, match=r"array of shape \(2,\).*\.any\(\)") as caught:
        run(callbacks=[lambda progress: np.ones(2, bool)])
    assert caught.value.trained.history.loss.shape == (1,)
    for answer in (later, lambda progress: Awaitable()):
        with pytest.raises(TypeError, match="got a coroutine, which runs nothing"):
            run(callbacks=[lambda progress, answer=answer: answer(progress)])


async def coroutine(progress):
    """What fit doesn't await."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"callbacks": [coroutine]}, "got the coroutine function"),
        ({"checkpoints": ""}, "expected the path of a folder, got an empty one"),
        ({"checkpoints": "gs://bucket/run"}, "got the address gs://bucket/run"),
        ({"checkpoints": fnn.Checkpoints("s3://bucket")}, "got the address s3://bucket"),
        ({"checkpoints": fnn.Checkpoints("x", on_difference="ask")}, "expected 'refuse' or 'restart', got 'ask'"),
        ({"progress": "yes"}, r"fit\(progress\): expected True or False"),
        ({"epochs": 2**31}, "which 32-bit integers can number"),
        ({"epochs": 2**30}, "715827882 epochs of 3 steps"),
        ({"accumulate": 19}, r"at most the 18 steps of the run, got 19"),
    ],
)
def test_what_is_refused_before_training(as_for_users, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        run(**changes)


def test_a_state_that_is_not_finite_at_the_end_is_an_error():
    def forward(params, state, x, *, train, key=None):
        return x, state * 1e30, ()

    huge = fnn.Layer(lambda key: ((), jnp.ones(3, jnp.float32)), forward, lambda residuals, dy: ((), dy))
    with pytest.raises(fnn.DivergenceError, match=r"got others in state\[1\]; the parameters are finite") as caught:
        run(model=fnn.serial(fnn.linear(3, 1), huge))
    assert caught.value.trained.history.loss.shape == (6,)


def test_the_pace_follows_the_time_of_a_step():
    pace = first_pace("a program of this test", 0)
    assert (pace.steps, pace.is_compiled) == (1, False)
    pace = pace.after(1, 30.0).after(1, 0.001)
    assert pace.steps == 8
    assert pace.after(8, 4.0).steps == 1
    assert first_pace("a program of this test", 0).is_compiled
    assert Pace("x", SECONDS, 10**5, True).after(10**5, 0.01).steps == 2**16


def test_stretches_of_large_models_are_longer_and_are_not_waited_for():
    small = first_pace("of a small model", 10**6).after(1, 9.0).after(1, 0.0625).after(8, 0.5)
    large = first_pace("of a large model", 2 * 10**8).after(1, 9.0).after(1, 0.0625).after(8, 0.5)
    assert (small.steps, small.is_brief) == (9, True)
    assert (large.steps, large.is_brief, large.seconds) == (64, False, MOST_SECONDS)
    assert first_pace("of a large model", 2 * 10**8).steps == 80
    assert SECONDS < first_pace("of another", 10**8).seconds < MOST_SECONDS


def test_the_times_of_many_programs_are_kept_and_the_oldest_forgotten():
    for number in range(KEPT + 1):
        Pace((number, "of many"), SECONDS, 1, True).after(1, 0.001)
    assert not first_pace((0, "of many"), 0).is_compiled
    assert first_pace((1, "of many"), 0).is_compiled
    assert first_pace((KEPT, "of many"), 0).is_compiled


def test_ignored_signals_stay_ignored():
    kept = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interrupts().deferred():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, kept)
