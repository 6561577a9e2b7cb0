"""Checkpoints: a run that was cut anywhere ends as one that never was; what is broken or foreign is refused."""

import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from experiments.benchmarks.survival import break_a_byte, fingerprint, train
from funcnn._numerics.precision import enable_x64
from funcnn.training.fingerprint import fingerprints
from funcnn.training.store import _hash, _orbax_lock
from tests.cases import WIDEST
from tests.training.runs import MODEL, X, Y, batches, bits, run, stream

EARLY = {"validation": (X, Y), "early_stopping": fnn.EarlyStopping(50)}


STOPS = [lambda progress: None]
"""A run that stops after every epoch is compiled once with those that save after every epoch."""


class Killed(BaseException):
    """What ends a run from inside, at a callback."""


def cut(function, after, **changes):
    """The run ended after some epochs, as by a kill: nothing is saved on the way out."""

    def kill(progress):
        if progress.epoch == after:
            raise Killed

    with pytest.raises(Killed):
        function(callbacks=[kill], **changes)


def newest(folder):
    return max(path for path in folder.iterdir() if path.name.isdecimal())


@pytest.fixture(scope="module")
def saved_epoch(tmp_path_factory):
    """The folder of a run of one epoch, to be copied."""
    folder = tmp_path_factory.mktemp("saved") / "epoch"
    run(epochs=1, checkpoints=folder)
    return folder


@pytest.mark.parametrize("function", [run, pytest.param(stream, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("every", [2, *(pytest.param(n, marks=pytest.mark.thorough) for n in (4, None))])
def test_a_run_cut_twice_ends_bit_by_bit_as_one_that_never_was(tmp_path, function, every):
    saved = fnn.Checkpoints(tmp_path, every=every)
    expected = function(**EARLY)
    cut(function, 2, checkpoints=saved, **EARLY)
    cut(function, 5, checkpoints=saved, **EARLY)
    assert bits(function(checkpoints=saved, **EARLY)) == bits(expected)
    # Once it is done it is done: the same comes back at once.
    assert bits(function(checkpoints=saved, **EARLY)) == bits(expected)


def test_more_epochs_go_on_from_where_fewer_ended(tmp_path):
    run(epochs=2, checkpoints=tmp_path)
    assert bits(run(checkpoints=tmp_path)) == bits(run())


def test_as_many_are_kept_as_asked(tmp_path):
    run(checkpoints=fnn.Checkpoints(tmp_path, every=2, keep=2))
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [16, 18]


def test_a_checkpoint_of_another_format_is_refused(tmp_path, monkeypatch):
    cut(run, 2, checkpoints=tmp_path)
    monkeypatch.setattr("funcnn.training.store.FORMAT", 5)
    with pytest.raises(fnn.CheckpointError, match=r"expected checkpoints of format 5 in .*, got format 4 at step"):
        run(checkpoints=tmp_path)


@pytest.mark.benchmarks_smoke
def test_a_killed_process_goes_on(tmp_path):
    """The whole trial, fifty kills, is ``python -m experiments.benchmarks.survival``."""
    code = "import sys; from experiments.benchmarks.survival import train; train(sys.argv[1], 60)"
    like_here = {"JAX_ENABLE_X64": "0", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    place = tmp_path / "killed"
    with subprocess.Popen([sys.executable, "-c", code, str(place)], env=os.environ | like_here) as process:
        wait_for(lambda: place.is_dir() and any(path.name.isdecimal() for path in place.iterdir()), process)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    with enable_x64(False), jax.numpy_rank_promotion("allow"):
        assert int(newest(place).name) < 60 * 15
        assert fingerprint(train(place, 60)) == fingerprint(train(tmp_path / "whole", 60))


def wait_for(condition, process, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the run ended before it was killed"
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "leaves"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_interrupts_save_and_leave(tmp_path, number, leaves):
    saved, handlers = fnn.Checkpoints(tmp_path, every=100), signal.getsignal(signal.SIGINT)
    with pytest.raises(leaves):
        run(
            checkpoints=saved, callbacks=[lambda progress: signal.raise_signal(number) if progress.epoch == 3 else None]
        )
    assert int(newest(tmp_path).name) == 9
    assert signal.getsignal(signal.SIGINT) is handlers
    assert bits(run(checkpoints=saved)) == bits(run())


# What Orbax leaves behind of a damaged checkpoint is swept up here, and not in the next test.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestBroken:
    @pytest.fixture(autouse=True)
    def left_behind(self):
        yield
        gc.collect()

    def test_a_broken_byte_anywhere_never_goes_on_wrong(self, tmp_path, monkeypatch):
        """Flipped bits and missing bytes in each file of a checkpoint; two hundred are in the survival benchmark."""
        whole, places = tmp_path / "whole", random.Random(0)
        expected = bits(run(epochs=2, checkpoints=fnn.Checkpoints(whole, every=100)))
        files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file() and path.stat().st_size]
        assert len(files) >= 5
        refused = 0
        for number in range(12):
            copy = tmp_path / str(number)
            shutil.copytree(whole, copy)
            break_a_byte(copy / files[number % len(files)], places)
            try:
                assert bits(run(epochs=2, checkpoints=fnn.Checkpoints(copy, every=100))) == expected
            except fnn.CheckpointError:
                refused += 1
        assert refused >= 2

    def test_the_one_before_is_used_when_asked(self, tmp_path):
        expected = run(epochs=4, checkpoints=tmp_path)
        damage(newest(tmp_path))
        with pytest.raises(fnn.CheckpointError, match=r"step 12 in .*damaged='previous'"):
            run(epochs=4, checkpoints=tmp_path)
        with pytest.warns(UserWarning, match="damaged='previous' resumes from the one before it"):
            again = run(epochs=4, checkpoints=fnn.Checkpoints(tmp_path, damaged="previous"))
        assert bits(again) == bits(expected)

    def test_damaged_ones_only_are_refused_either_way(self, tmp_path):
        run(epochs=1, checkpoints=tmp_path)
        damage(newest(tmp_path))
        with (
            pytest.warns(UserWarning, match="It is skipped"),
            pytest.raises(fnn.CheckpointError, match="got damaged ones only: 3"),
        ):
            run(epochs=1, checkpoints=fnn.Checkpoints(tmp_path, damaged="previous"))

    @pytest.mark.parametrize("place", ["about/metadata", "arrays/_METADATA"])
    def test_hostile_descriptions_are_refused_before_they_are_read(self, saved_epoch, tmp_path, place):
        """Deep nesting, which ends in a RecursionError, and a size that would fill the memory; a hole takes no disk."""
        writings = {"deep": lambda file: file.write(b"[" * 10**6), "large": lambda file: file.truncate(2**36)}
        for name, write in writings.items():
            folder = shutil.copytree(saved_epoch, tmp_path / name)
            with (newest(folder) / place).open("wb") as file:
                write(file)
            with pytest.raises(fnn.CheckpointError, match="got a damaged one"):
                run(checkpoints=folder)

    def test_a_history_larger_than_its_files_is_refused(self, saved_epoch, tmp_path):
        folder = shutil.copytree(saved_epoch, tmp_path / "copy")
        change_description(newest(folder), lambda about: about["leaves"]["history.losses"][0].__setitem__(0, 10**12))
        with pytest.raises(fnn.CheckpointError, match="its history takes"):
            run(checkpoints=folder)

    def test_arrays_are_compared_with_what_was_written(self, saved_epoch, tmp_path):
        folder = shutil.copytree(saved_epoch, tmp_path / "copy")
        change_description(newest(folder), lambda about: about["fingerprints"].update({"params.0.kernel": "another"}))
        with pytest.raises(
            fnn.CheckpointError, match=r"got a damaged one, .*: params\.0\.kernel isn't what was written"
        ):
            run(checkpoints=folder)

    def test_best_parameters_of_another_shape_are_refused(self, tmp_path):
        run(epochs=1, checkpoints=tmp_path, **EARLY)
        change_description(newest(tmp_path), lambda about: about["leaves"]["best.params.0.kernel"][0].append(1))
        with pytest.raises(
            fnn.CheckpointError, match=r"best\.params\.0\.kernel has another shape or dtype than the par"
        ):
            run(checkpoints=tmp_path, **EARLY)


def change_description(checkpoint, change):
    """Change the description of a checkpoint, and compute its checksum again."""
    file = checkpoint / "about" / "metadata"
    about = json.loads(file.read_text())
    change(about)
    del about["sha256"]
    file.write_text(json.dumps(about | {"sha256": _hash(about)}))


def damage(checkpoint):
    """A bit of the description of the arrays."""
    file = checkpoint / "about" / "metadata"
    file.write_bytes(file.read_bytes().replace(b'"epoch"', b'"epocH"', 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": fnn.mlp((3, 4, 1), fnn.tanh, normalization=fnn.batch_norm, dropout=0.1)}, "params.0.kernel was"),
        (
            {"model": fnn.mlp((3, 8, 1), fnn.relu, normalization=fnn.batch_norm, dropout=0.1)},
            "model .*tanh.* in the checkpoint, .*relu.* here",
        ),
        (
            {"model": fnn.mlp((3, 8, 1), fnn.tanh, normalization=fnn.batch_norm, dropout=0.2)},
            r"model dropout\(rate=0\.1\) in the checkpoint, .*0\.2",
        ),
        ({"optimizer": fnn.sgd(0.01)}, "it also holds opt_state.0.count"),
        ({"optimizer": fnn.adam(0.02)}, "learning rate 0.01 in the checkpoint, 0.02 here"),
        ({"optimizer": fnn.adam(0.01, b1=0.5)}, "b1 0.9 in the checkpoint, 0.5 here"),
        ({"grad": fnn.autodiff_value_and_grad}, "gradient function manual_value_and_grad in the checkpoint, autodiff"),
        ({"key": jax.random.key(1)}, "another key than in the checkpoint"),
        ({"data": (X + 1, Y)}, "the values of data.x are others than in the checkpoint"),
        ({"batch_size": 4}, "batch_size 8 in the checkpoint, 4 here"),
        ({"validation": (X, Y)}, "validation.x none in the checkpoint"),
        ({"params": jax.tree.map(jnp.zeros_like, MODEL.init(jax.random.key(0))[0])}, "another start"),
    ],
)
@pytest.mark.parametrize("damaged", ["refuse", "previous"])
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(saved_epoch, tmp_path, changes, message, damaged):
    folder = shutil.copytree(saved_epoch, tmp_path / "copy")
    with pytest.raises(fnn.CheckpointError, match="of another: ") as caught:
        run(checkpoints=fnn.Checkpoints(folder, damaged=damaged), **changes)
    assert re.search(message, str(caught.value))
    assert [int(path.name) for path in folder.iterdir()] == [3]


def test_losses_are_compared_by_their_programs(tmp_path):
    def half(prediction, target):
        loss, residuals = fnn.mean_squared_error.forward(prediction, target)
        return loss / 2, residuals

    def half_backward(residuals, dloss):
        return fnn.mean_squared_error.backward(residuals, dloss / 2)

    run(epochs=1, loss=fnn.Loss(*fnn.mean_squared_error[:2]), checkpoints=tmp_path)
    with pytest.raises(fnn.CheckpointError, match=r"function .* in the checkpoint, half here"):
        run(loss=fnn.Loss(half, half_backward), checkpoints=tmp_path)


def test_what_another_optimizer_left_is_of_another_run(tmp_path):
    """Its first update may be as large, and its state hold more."""
    run(epochs=1, optimizer=fnn.momentum(0.1), checkpoints=tmp_path)
    with pytest.raises(fnn.CheckpointError, match=r"of another: it also holds opt_state.0.trace"):
        run(optimizer=fnn.sgd(0.1), checkpoints=tmp_path)


def test_fewer_epochs_than_are_done_are_refused(tmp_path):
    run(epochs=2, checkpoints=tmp_path)
    with pytest.raises(ValueError, match=r"fit\(epochs\): expected at least the 2"):
        run(epochs=1, checkpoints=tmp_path)


def test_random_keys_in_a_state_come_back_as_keys(tmp_path):
    def forward(params, state, x, *, train, key=None):
        drawn, kept = jax.random.split(state)
        return x + jax.random.normal(drawn, x.shape, x.dtype) / 100, kept, ()

    noisy = fnn.Layer(lambda key: ((), key), forward, lambda residuals, dy: ((), dy))
    model = fnn.serial(noisy, fnn.linear(3, 1))
    cut(run, 2, model=model, checkpoints=tmp_path)
    resumed, whole = run(model=model, checkpoints=tmp_path), run(model=model, callbacks=STOPS)
    assert bits(resumed.params) == bits(whole.params)
    assert jax.random.key_data(resumed.state[0]).tolist() == jax.random.key_data(whole.state[0]).tolist()


def test_a_layer_of_other_fields_is_the_same_in_another_process(tmp_path, as_for_users):
    """Its text may hold the addresses of its functions."""

    class OwnLayer(NamedTuple):
        init: object
        forward: object
        backward: object

    def model():
        layer = fnn.linear(3, 1)
        return fnn.serial(OwnLayer(layer.init, lambda *args, **more: layer.forward(*args, **more), layer.backward))

    cut(run, 2, model=model(), checkpoints=tmp_path)
    assert run(model=model(), checkpoints=tmp_path).history.loss.shape == (6,)


def test_narrow_dtypes_come_back(tmp_path):
    model = fnn.mlp((3, 8, 1), fnn.tanh)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.init(jax.random.key(0))[0])
    narrow = {"model": model, "params": params, "data": (X.astype(jnp.bfloat16), Y.astype(jnp.bfloat16))}
    cut(run, 2, checkpoints=tmp_path, **narrow)
    assert bits(run(checkpoints=tmp_path, **narrow)) == bits(run(callbacks=STOPS, **narrow))


def test_fingerprints_tell_every_bit_and_place_apart():
    values = [jnp.arange(5).astype(dtype) for dtype in (WIDEST, jnp.bfloat16, jnp.int8, jnp.bool_)]
    values += [jnp.arange(5, dtype=jnp.complex64), jnp.zeros(5, WIDEST), jnp.zeros((), WIDEST), values[0][::-1]]
    assert len({fingerprints(value) for value in values}) == len(values)
    base = np.arange(64, dtype=np.float32)
    prints = fingerprints(jnp.asarray(base))
    for place in range(0, 64 * 32, 97):
        flipped = base.copy()
        flipped.view(np.uint32)[place // 32] ^= np.uint32(1 << place % 32)
        assert fingerprints(jnp.asarray(flipped)) != prints


def test_without_orbax_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax", None)
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'funcnn\[training\]'"):
        run(checkpoints=tmp_path, model=MODEL)


def test_a_reader_whose_state_is_too_large_is_named_and_training_goes_on(tmp_path):
    class Reader:
        def __init__(self):
            self.left = batches()

        def __iter__(self):
            return self

        def __next__(self):
            if not self.left:
                raise StopIteration
            return self.left.pop()

        def get_state(self):
            return " " * 2**22

    saved = fnn.Checkpoints(tmp_path, every=1)
    with pytest.warns(UserWarning, match=r"The state of the data's iterator has \d+ of them: keep less in it"):
        trained = stream(data=lambda epoch: Reader(), epochs=2, checkpoints=saved)
    assert trained.history.loss.shape == (2,)


def test_a_folder_in_the_place_of_a_checkpoint_is_left_and_the_next_save_is_free(tmp_path):
    (tmp_path / "run" / "000000000003").mkdir(parents=True)
    with pytest.raises(fnn.CheckpointError, match=r"expected to save the end of the run in .*\.trained") as caught:
        run(epochs=1, checkpoints=tmp_path / "run")
    assert caught.value.trained.history.loss.shape == (1,)
    assert not _orbax_lock.locked()
    assert not list((tmp_path / "run" / "000000000003").iterdir())


def test_a_run_of_an_iterator_that_is_done_is_done(tmp_path):
    """Its batches can be read once, and are not compared."""
    settings = {"data": iter(batches()), "epochs": 1, "checkpoints": tmp_path}
    whole = stream(**settings)
    again = stream(**settings | {"data": iter(batches())})
    assert bits(again) == bits(whole)
