"""The studies of scaling: their arithmetic on known figures, and each of them on tiny sizes."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.progress import Progress

import funcnn as fnn
from experiments.benchmarks.scaling import (
    _measurement,
    _other_libraries,
    checking,
    depth,
    ensembles,
    first_check,
    first_use,
    growth,
    memory,
    precision,
    processes,
)

LOOPED = ("XOR 2-4-1", "digits 64-128-64-10")
"""A network with the sigmoid cross-entropy, and one with the softmax's."""

pytestmark = pytest.mark.usefixtures("untouched_configuration")


def run(module, kind, tmp_path, *arguments):
    """The command as a shell gives it, and what it wrote."""
    name = module.__name__.rpartition(".")[2]
    out = tmp_path / f"{name}.json"

    def measure(settings, bar):
        results = module.measure(settings, bar)
        assert bar.tasks
        assert bar.finished
        return results

    _measurement.command(name, kind, measure, module.show, [*arguments, "--out", str(out)])
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["command"].startswith(f"python -m experiments.benchmarks.scaling.{name} --")
    assert {"jax", "numpy", "processor", "device", "cores"} <= written["environment"].keys()
    return written


def test_exponents_are_those_of_the_power_law_in_the_larger_half():
    sizes = (1, 2, 4, 8, 16, 32)
    powers = np.array([1.5, 2.0])
    seconds = 3 * np.array(sizes, float)[:, None] ** powers
    seconds[:3] = 7.0
    np.testing.assert_allclose(growth.exponents(sizes, seconds), powers)
    np.testing.assert_allclose(growth.exponents((2, 8), seconds[[1, 3]] * 0 + [[1.0], [4.0]]), [1.0, 1.0])


def test_ratios_are_taken_within_a_repetition():
    slow, fast = [2.0, 4.0, 8.0, 16.0], [1.0, 2.0, 4.0, 8.0]
    assert _measurement.ratio(slow, fast) == {"value": 2.0, "low": 2.0, "high": 2.0}
    spread = _measurement.estimate([1.0, 2.0, 9.0])
    assert spread["value"] == 2.0
    assert spread["low"] < 2.0 < spread["high"]


def test_a_single_repetition_has_no_interval():
    assert _measurement.estimate([3.0]) == {"value": 3.0, "low": None, "high": None}
    assert _measurement.format_estimate(_measurement.estimate([3.0])) == "3"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"repetitions": 0}, "--repetitions: expected 1 or more, got 0"),
        ({"seconds": -1.0}, "--seconds: expected 0 or more, got -1.0"),
        ({"batch_sizes": (4,)}, "--batch-sizes: expected two or more rising numbers from 1 on, got 4"),
        ({"depths": (20, 2)}, "--depths: expected two or more rising numbers from 1 on, got 20, 2"),
    ],
)
def test_settings_that_measure_nothing_are_refused(wrong, message):
    with pytest.raises(SystemExit, match=message):
        _measurement.check(wrong)
    _measurement.check({"only": (), "repetitions": 1, "seconds": 0.0, "depths": (2, 20)})


def test_every_repetition_calls_each_once_and_the_order_turns():
    called = []
    runs = {name: lambda name=name: called.append(name) for name in "ab"}
    measured = _measurement.time_interleaved(runs, repetitions=3, bar=Progress(disable=True), title="a and b")
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"
    assert [len(of) for of in measured.values()] == [3, 3]


def test_a_study_counts_its_measurements_where_there_is_no_terminal(tmp_path, capsys):
    def measure(settings, bar):
        for place in _measurement.tracked(bar, range(3), "places"):
            assert bar.tasks[0].completed == place
        assert not list(_measurement.tracked(bar, (), "nothing"))
        return _measurement.time_interleaved({"a": int}, repetitions=3, bar=bar, title="calls")

    arguments = ["--out", str(tmp_path / "study.json")]
    _measurement.command("study", memory.MemorySettings, measure, lambda results: None, arguments)
    lines = [line for line in capsys.readouterr().out.splitlines() if " measurements after " in line]
    counts = [f"{count} measurements" for count in ("0 of 3", "0 of 4", "3 of 3", "4 of 4")]
    assert [line.partition(" after ")[0] for line in lines] == counts
    assert [line.partition(": ")[2] for line in lines] == ["places", "calls"] * 2


def test_seconds_are_those_of_one_call():
    calls = []
    spent = _measurement.seconds_of(lambda: calls.append(0), at_least=0.01)
    assert len(calls) > 1
    assert spent * len(calls) >= 0.01


@pytest.fixture(scope="module")
def losses():
    """By task, of ten full-batch steps from one start: funcnn's, and those of the loops that can begin there."""
    found = {}
    with _measurement.single_precision():
        settings = ensembles.EnsemblesSettings(xor_networks=2, xor_epochs=10, digits_networks=2, loop_epochs=100)
        cases = ensembles.cases(settings)
        for name in LOOPED:
            case = cases[name]
            task = case.task._replace(batch_size=len(case.task.x))
            params, state = case.model.init(jax.random.key(0))
            trained = jax.jit(
                lambda data, params, case=case, state=state: fnn.train(
                    case.model, case.loss, fnn.adam(case.task.learning_rate), data, epochs=10, key=jax.random.key(0),
                    params=params, state=state,
                )
            )((task.x, case.target), params)  # fmt: skip
            found[name] = {
                "funcnn": np.asarray(trained.history.loss), "numpy": _other_libraries.numpy_by_hand(task)(10),
                "numpy together": _other_libraries.numpy_by_hand(ensembles.stacked(task, 2))(10),
            }  # fmt: skip
            if (train := _other_libraries.pytorch(task)) is not None:
                found[name]["pytorch"] = train(10)
    return found


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("name", LOOPED)
def test_the_loops_train_what_funcnn_trains(losses, name):
    expected = losses[name]["funcnn"]
    assert expected[-1] < expected[0]
    for given in losses[name].values():
        given = given if given.ndim == 2 else given[:, None]
        np.testing.assert_allclose(given, np.broadcast_to(expected[:, None], given.shape), rtol=1e-4)


def test_an_epoch_of_a_loop_takes_every_sample_once():
    x = np.arange(6.0, dtype=np.float32)[:, None]
    task = _other_libraries.Task((1, 1), x, np.arange(6), 2, 0.1, ())
    taken = list(_other_libraries.batches(task, np.random.default_rng(0)))
    assert [len(rows) for rows, _ in taken] == [2, 2, 2]
    assert sorted(np.concatenate([labels for _, labels in taken])) == list(range(6))
    assert all((rows[:, 0] == labels).all() for rows, labels in taken)


@pytest.mark.benchmarks_smoke
def test_ensembles(tmp_path):
    found = run(
        ensembles, ensembles.EnsemblesSettings, tmp_path, "--xor-networks", "3", "--xor-epochs", "4",
        "--loop-epochs", "20", "--repetitions", "2", "--only", "XOR 2-4-1",
    )  # fmt: skip
    xor = found["networks"]["XOR 2-4-1"]
    assert xor["network_steps"]["funcnn, all at once"] == 3 * 4
    seconds = xor["seconds"]
    ratios = np.array(seconds[ensembles.HEADLINE]) / seconds["funcnn, all at once"] * 12 / 20
    assert xor["funcnn_all_at_once_over"][ensembles.HEADLINE]["value"] == pytest.approx(np.median(ratios))


@pytest.mark.benchmarks_smoke
def test_depth(tmp_path):
    found = run(
        depth, depth.DepthSettings, tmp_path, "--depths", "2", "40", "--width", "12", "--batch-size", "64",
        "--repetitions", "1", "--seconds", "0",
    )  # fmt: skip
    assert all(figures["compile"]["value"] > 0 for figures in found["largest_over_smallest"].values())
    working = {way: by["40"]["bytes"]["temporary"] for way, by in found["ways"].items()}
    assert working["manual, recomputed"] < working["manual"]
    assert working["autodiff, checkpointed"] < working["autodiff"]


@pytest.mark.benchmarks_smoke
def test_every_way_of_depth_gives_the_same_gradient():
    batch = _measurement.samples(5, 4, 10)
    with _measurement.single_precision():
        params, state = depth.network("manual", 3, 4).init(jax.random.key(0))
        gradients = [grad(depth.network(way, 3, 4), fnn.softmax_cross_entropy) for way, (grad, _) in depth.WAYS.items()]
        grads = jax.jit(lambda *given: [gradient(*given)[1] for gradient in gradients])(params, state, batch)
    for other in grads[1:]:
        jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-6), grads[0], other)


@pytest.mark.benchmarks_smoke
def test_growth(tmp_path):
    found = run(
        growth, growth.GrowthSettings, tmp_path, "--only", "width", "samples", "seeds", "--widths", "2", "4",
        "--samples", "64", "128", "--seeds", "1", "2", "--steps", "1", "--repetitions", "2", "--seconds", "0",
    )  # fmt: skip
    assert list(found["axes"]) == ["width", "samples", "seeds"]
    samples = found["axes"]["samples"]
    seconds = np.array(samples["seconds"]["128"]) / samples["seconds"]["64"]
    np.testing.assert_allclose(samples["exponents"], np.log2(seconds))


@pytest.mark.benchmarks_smoke
def test_precision(tmp_path):
    found = run(
        precision, precision.PrecisionSettings, tmp_path, "--seeds", "2", "--digits-epochs", "2", "--repetitions", "2",
        "--only", "digits 64-128-64-10",
    )  # fmt: skip
    digits = found["networks"]["digits 64-128-64-10"]
    differences = np.subtract(digits["accuracies"]["bfloat16"], digits["accuracies"]["float32"])
    assert digits["bfloat16_minus_float32"]["value"] == pytest.approx(differences.mean())
    assert min(digits["accuracies"]["bfloat16"]) > 0.3


@pytest.mark.benchmarks_smoke
def test_the_large_layer_counts_operations():
    with _measurement.single_precision():
        found = precision.large_layer(size=16, repetitions=2, bar=Progress(disable=True))
    seconds, rate = found["bfloat16"]["seconds"], found["bfloat16"]["operations_a_second"]
    assert rate["layer"]["value"] == pytest.approx(np.median([3 * 2 * 16**3 / spent for spent in seconds["layer"]]))


@pytest.mark.benchmarks_smoke
def test_first_use(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    found = run(first_use, first_use.FirstUseSettings, tmp_path, "--repetitions", "1")
    counts = found["counts"]
    assert counts["no cache"]["first fit"]["compilations"][0] > 0
    assert counts["no cache"]["second fit"]["compilations"] == [0]
    assert counts["empty cache"]["first fit"]["cache_misses"][0] > 0
    assert counts["filled cache"]["first fit"]["cache_hits"] == counts["empty cache"]["first fit"]["cache_misses"]
    assert counts["filled cache"]["first fit"]["cache_misses"] == [0]


@pytest.mark.benchmarks_smoke
def test_first_check(tmp_path):
    found = run(first_check, first_check.FirstCheckSettings, tmp_path, "--repetitions", "1")
    assert found["checks"].keys() == first_check.CHECKS.keys()
    assert all(figures["cpu_seconds"]["value"] > 0 for figures in found["checks"].values())


@pytest.mark.benchmarks_smoke
def test_memory(tmp_path):
    found = run(memory, memory.MemorySettings, tmp_path, "--only", "2-4-2", "repeat of 3 layers", "--layers", "3")
    parameters = 2 * 4 + 4 + 4 * 2 + 2
    assert found["bytes"]["2-4-2"]["manual"]["arguments"] >= 3 * 4 * parameters
    assert found["bytes"].keys() == {"2-4-2", "repeat of 3 layers"}
    with pytest.raises(SystemExit, match="expected some of"):
        memory.measure(memory.MemorySettings(only=("2-4-3",)), Progress(disable=True))


@pytest.mark.benchmarks_smoke
def test_memory_of_attention_grows_with_the_length_in_blocks_and_with_its_square_without(tmp_path):
    lengths = (256, 1024)
    found = run(memory, memory.MemorySettings, tmp_path, "--only", "attention", "--lengths", *map(str, lengths))
    short, long = (found["attention"][str(length)] for length in lengths)
    assert found["bytes"] == {}
    assert short.keys() == memory.FORMS.keys()
    assert long["plain"] > 12 * short["plain"]
    assert long["blockwise"] < 5 * short["blockwise"]
    assert long["blockwise"] < long["plain"] / 4


def test_what_is_measured_is_single_precision():
    before = jax.config.jax_enable_x64
    with _measurement.single_precision():
        assert jnp.zeros(()).dtype == jnp.float32
    assert jax.config.jax_enable_x64 == before


def test_the_model_of_processes_finds_the_costs_that_made_the_seconds():
    start, latency, a_byte, compute = 1e-3, 2e-4, 1e-9, 0.02

    def cost(arrays, numbers):
        return start + arrays * latency + 4 * arrays * numbers * a_byte

    sums = [{"arrays": k, "numbers": n, "seconds": [cost(k, n)] * 3} for k, n in processes.SUMS]
    together = [compute + start + 6 * latency + 4 * 300_000 * a_byte] * 3
    network = {"arrays": 6, "parameters": 300_000, "apart": [compute] * 3, "together": together}
    found = processes.fit_model({"sums": sums, "networks": {"one": network}})
    np.testing.assert_allclose([found["start"], found["latency"], found["seconds_a_byte"]], [start, latency, a_byte])
    np.testing.assert_allclose(found["sums_model_over_measured"], 1.0)
    assert found["networks"]["one"]["model_over_measured"]["value"] == pytest.approx(1.0)


@pytest.mark.benchmarks_smoke
def test_checking_times_every_checker_on_gradients_that_are_right(tmp_path):
    asked = ("--only", "2-4-2", "--checkers", "funcnn", "np.allclose", "--repetitions", "2")
    figures = run(checking, checking.CheckingSettings, tmp_path, *asked)["networks"]["2-4-2"]
    assert figures["parameters"] == 2 * 4 + 4 + 4 * 2 + 2
    assert figures["flagged"] == {"the gradient itself": None, "funcnn": False, "np.allclose": False}
    assert all(of["value"] > 0 for of in figures["later_ms"].values())


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="only some systems, Linux among them, let a process choose its cores"
)
def test_processes_get_cores_of_their_own_and_the_parent_keeps_its(monkeypatch):
    before, shares = os.sched_getaffinity(0), []
    monkeypatch.setattr(processes.subprocess, "Popen", lambda *_, **__: shares.append(os.sched_getaffinity(0)))
    for number in range(processes.PROCESSES):
        processes.launch(number, [])
    assert os.sched_getaffinity(0) == before
    assert set.union(*shares) == before
    assert len(before) < processes.PROCESSES or set.isdisjoint(*shares)
