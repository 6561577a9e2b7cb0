"""The speed benchmark: equal training wherever a library is installed, its ratios, its words and its table."""

import importlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from experiments.benchmarks.speed import __main__ as command, markdown, rounds
from experiments.benchmarks.speed.__main__ import SpeedSettings
from experiments.benchmarks.speed.architectures import ARCHITECTURES, CONTESTANTS
from experiments.benchmarks.speed.contestants import Contestant, jax_scan
from experiments.benchmarks.speed.networks import DIGITS, FIVE, VARIANTS, samples, start
from experiments.benchmarks.speed.rounds import Estimate
from experiments.benchmarks.speed.summary import geometric_means, summarised
from experiments.benchmarks.speed.worker import (
    LEAST_EPOCHS,
    Task,
    begin_training,
    first_losses,
    forget_peak,
    peak_megabytes,
    timed as timed_by_worker,
)
from experiments.harness.page_section import PageSection

XOR = FIVE[0]
JAX_SETTINGS = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}


@pytest.fixture(scope="module", autouse=True)
def as_in_a_worker():
    """float32 and JAX's usual promotion: plain JAX is written as its users write it."""
    before = {name: getattr(jax.config, name) for name in JAX_SETTINGS}
    for name, value in JAX_SETTINGS.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def make_contestant(network, name):
    module = importlib.import_module(f"{rounds.PACKAGE}.contestants.{name}")
    return module.contestant(network, *samples(network), start(network))


@pytest.fixture(scope="module")
def reference():
    known = {}

    def losses(network):
        if network not in known:
            contestant = make_contestant(network, rounds.REFERENCE)
            facts = first_losses(network, contestant, contestant.train(contestant.block))
            uncorrected = jax_scan.uncorrected_losses(network, *samples(network), start(network), len(facts["losses"]))
            moved = jax_scan.moved_losses(network, *samples(network), start(network), len(facts["losses"]))
            known[network] = facts | {"uncorrected_losses": uncorrected.tolist(), "moved_losses": moved.tolist()}
        return known[network]

    return losses


def check_first_losses(network, name, reference):
    contestant = make_contestant(network, name)
    first = contestant.train(contestant.block)
    facts = first_losses(network, contestant, first)
    apart, allowed = rounds.deviation(facts, reference(network))
    assert apart <= allowed < 0.01
    contestant.restart()
    again = contestant.train(contestant.block)
    if contestant.expected is None:
        np.testing.assert_allclose(again, first, rtol=1e-5)
    contestant.epochs(1)
    prediction = contestant.predict()
    assert len(prediction) == network.samples
    assert np.isfinite(prediction).all()


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("network", [XOR, DIGITS], ids=lambda network: network.name)
@pytest.mark.parametrize(
    "name", ["numpy_by_hand", "scikit_learn", "jax_step", "funcnn_scan", "funcnn_autodiff", "funcnn_fit"]
)
def test_everyone_trains_to_the_reference_s_losses(network, name, reference):
    check_first_losses(network, name, reference)


@pytest.mark.benchmarks_smoke
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("package", "name"),
    [("equinox", "equinox"), ("flax", "flax_nnx"), ("keras", "keras_jax"), ("torch", "pytorch")],
)
def test_so_do_the_libraries_of_the_bench_group(package, name, reference, monkeypatch):
    monkeypatch.setitem(os.environ, "KERAS_BACKEND", "jax")
    pytest.importorskip(package)
    check_first_losses(DIGITS, name, reference)


@pytest.mark.benchmarks_smoke
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("network", ARCHITECTURES, ids=lambda network: network.name)
@pytest.mark.parametrize("name", [name for name in CONTESTANTS if name not in ("jax_scan", "pytorch_compiled")])
def test_architectures_train_to_the_reference_s_losses(network, name, reference):
    pytest.importorskip(rounds.NEEDS[name][0])
    check_first_losses(network, name, reference)


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("network", VARIANTS, ids=lambda network: network.name)
def test_the_variants_are_the_same_networks(network, reference):
    check_first_losses(network, "funcnn_scan", reference)
    if network.is_plain:
        check_first_losses(network, "numpy_by_hand", reference)
        check_first_losses(network, "scikit_learn", reference)
    else:
        assert make_contestant(network, "numpy_by_hand") is None
        assert make_contestant(network, "scikit_learn") is None


def test_other_losses_are_told_from_the_reference_s():
    facts = {"losses": [2.0, 1.0], "averaged": 1, "uncorrected_epsilon": False}
    reference = {"losses": [2.0, 1.0, 0.5], "uncorrected_losses": [2.0, 1.25, 1.0], "moved_losses": [[2.0, 1.0, 0.5]]}

    def apart(**changed):
        return rounds.deviation(facts | changed, reference)[0]

    assert apart() == 0
    assert apart(uncorrected_epsilon=True) == pytest.approx(0.2)
    assert apart(losses=[1.5], averaged=2) == 0
    assert apart(losses=[float("nan")]) == float("inf")
    assert apart(losses=[2.0, 1.0, 0.5, 0.25]) == float("inf")
    assert apart(expected=[2.0, 0.5]) == 1


def test_rounding_alone_excuses_as_much_as_it_can_do():
    facts = {"losses": [2.0, 1.01, 0.9], "averaged": 1, "uncorrected_epsilon": False}
    reference = {"losses": [2.0, 1.0, 0.5], "moved_losses": [[2.0, 1.0, 0.5], [2.0, 1.002, 0.6]]}
    apart, allowed = rounds.deviation(facts, reference)
    assert apart == pytest.approx(0.01)
    assert allowed == pytest.approx(0.02)
    assert rounds.deviation(facts | {"losses": [2.1, 1.0, 0.5]}, reference)[0] == pytest.approx(0.05)


def timed(*steps):
    """A contestant's part of a record; an epoch takes ten steps, a prediction one."""
    facts = {"first_step_seconds": 1.5, "import_seconds": 0.5, "peak_megabytes": 100.0, "deviation": 1e-6}
    return facts | {"rounds": [{"steps": each, "epochs": 10 * each, "predictions": each} for each in steps]}


RECORD = {
    "contestants": {"jax_scan": timed(2e-3, 4e-3, 8e-3), "funcnn_scan": timed(1e-3, 2e-3, 2e-3)},
    "left_out": {},
    "errors": {},
    "floor": [
        {"products": 4e-4, "update": 1e-4},
        {"products": 8e-4, "update": 2e-4},
        {"products": 9e-4, "update": 1e-4},
    ],
}


def test_ratios_are_taken_within_the_rounds():
    found = rounds.ratio(RECORD, "funcnn_scan", "jax_scan")
    assert found == Estimate(pytest.approx(2), pytest.approx(2), pytest.approx(4))
    assert rounds.floor_share(RECORD, "funcnn_scan").median == pytest.approx(0.5)


def test_a_single_round_has_no_interval():
    assert rounds.estimate([3.0]) == Estimate(3.0, None, None)


def test_an_interval_holds_the_median_and_narrows_with_rounds():
    values = np.random.default_rng(0).normal(10, 1, 400)
    few, many = rounds.estimate(values[:10]), rounds.estimate(values)
    assert many.low < many.median < many.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert many == rounds.estimate(values)


def test_the_summary_has_rates_and_geometric_means():
    found = summarised(DIGITS, RECORD)
    ours = found["figures"]["funcnn_scan"]
    assert ours["steps_per_second"]["median"] == pytest.approx(500)
    assert ours["epochs_per_second"]["median"] == pytest.approx(50)
    assert ours["predicted_samples_per_second"]["median"] == pytest.approx(500 * DIGITS.samples)
    other = {"ours_over": {"funcnn_scan": {"jax_scan": {"median": 8.0}}}}
    assert geometric_means([found, other])["funcnn_scan"]["jax_scan"] == pytest.approx(4)


def test_the_command_counts_networks_where_there_is_no_terminal(tmp_path, monkeypatch, capsys):
    def measure(network, contestants, number, seconds, report):
        report(f"{network.name}: round 1")
        return RECORD

    monkeypatch.setattr(command, "measure_network", measure)
    monkeypatch.setattr(command.chart, "write", lambda *given: False)
    command.run(SpeedSettings(networks=(XOR.name, DIGITS.name), out=tmp_path / "bench.json"))
    printed = capsys.readouterr().out
    assert "2 of 2 networks measured after" in printed
    assert f"seconds: {DIGITS.name}: round 1\n" in printed


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(rounds.NEEDS, "equinox", ("numpy", "no_such_package"))
    assert rounds.missing("equinox") == "no_such_package isn't installed: pip install --group bench"
    assert rounds.missing("numpy_by_hand") is None


def test_the_table_stands_between_its_marks(tmp_path):
    result = {"network": DIGITS._asdict()} | RECORD | summarised(DIGITS, RECORD)
    record = {
        "command": "python -m experiments.benchmarks.speed",
        "settings": {"rounds": 3},
        "about": {"jax": "0.10", "torch": "not installed", "processor": "a processor", "cores": 2, "device": "cpu"},
        "networks": [result],
        "geometric_means": geometric_means([result]),
    }
    section = PageSection(tmp_path / "README.md", "speed")
    section.page.write_text(f"before\n{section.begin}\nold\n{section.end}\nafter\n", encoding="utf-8")
    markdown.write(record, section)
    text = section.page.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{section.begin}\n| steps a second | 64-128-64-10 |\n")
    assert text.endswith(f"{section.end}\nafter\n")
    assert f"| {markdown.TITLES['funcnn_scan']} | 500 (2.00) |" in text
    assert "a processor, 2 cores, jax 0.10" in text
    assert "old" not in text
    whole = markdown.table(record)
    assert f"| {markdown.TITLES['jax_scan']} | 250 (1.00) |" in whole
    assert "share of the floor | 50% |" in whole
    assert "jax 0.10; a processor, 2 cores" in whole
    section.page.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="once each"):
        markdown.write(record, section)


def test_the_readme_has_the_figures_of_the_file():
    file = Path(rounds.__file__).parents[1] / "results" / "speed_architectures_cpu_amd_epyc.json"
    assert markdown.SECTION.content() == markdown.short_table(json.loads(file.read_text(encoding="utf-8")))


@pytest.mark.benchmarks_smoke
def test_workers_are_measured_in_rounds_and_who_fails_leaves_the_others_alone(monkeypatch):
    """Processes of their own: contestants, the reference and the floor, which refuses products that XLA dropped.

    One contestant can't be imported, and the process of another ends between two rounds.
    """
    monkeypatch.setitem(rounds.NEEDS, "no_such_module", ())
    measure = rounds._measure

    def kill_before(record, workers, name):
        if name == "scikit_learn" and record["contestants"][name]["rounds"]:
            workers[name].process.kill()
            workers[name].process.wait()
        measure(record, workers, name)

    monkeypatch.setattr(rounds, "_measure", kill_before)
    found = rounds.measure_network(XOR, ["no_such_module", "numpy_by_hand", "scikit_learn"], 2, 0.01, lambda word: None)
    assert set(found["errors"]) == {"no_such_module", "scikit_learn"}
    assert "ModuleNotFoundError" in found["errors"]["no_such_module"]
    assert "ended by itself" in found["errors"]["scikit_learn"]
    for name in ("jax_scan", "numpy_by_hand"):
        measured = found["contestants"][name]["rounds"]
        assert len(measured) == 2
        assert all(each > 0 for times in measured for each in times.values())
    assert [sorted(times) for times in found["floor"]] == [["products", "update"]] * 2
    assert found["contestants"]["numpy_by_hand"]["peak_megabytes"] < 200


@pytest.mark.benchmarks_smoke
def test_who_has_no_such_network_is_left_out():
    found = rounds.measure_network(ARCHITECTURES[1], ["scikit_learn"], 0, 0.0, lambda word: None)
    assert found["left_out"] == {"scikit_learn": "this network isn't written for it"}


@pytest.mark.parametrize(("block", "least"), [(4, 4 * LEAST_EPOCHS), (1, 1)])
def test_whole_epochs_are_timed_some_at_a_time(block, least):
    contestant = Contestant(np.zeros, lambda number: None, lambda: np.zeros(1), lambda: None, block=block)
    library = SimpleNamespace(contestant=lambda *start: contestant)
    facts, tasks = begin_training(library, DIGITS, None, None, None, 0.0, 0.0)
    assert tasks["steps"].least == facts["numbers"]["steps"] == least
    assert facts["numbers"]["epochs"] == facts["numbers"]["predictions"] == 1


@pytest.mark.benchmarks_smoke
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(),
    reason="only Linux lets a process begin the count of its peak memory anew",
)
def test_a_peak_that_was_forgotten_doesnt_count():
    forget_peak()
    before = peak_megabytes()
    np.ones(2**26).sum()
    high = peak_megabytes()
    assert high > before + 256
    forget_peak()
    assert peak_megabytes() < high - 256


def test_a_stretch_ends_before_numbers_underflow():
    runs, prepared = [], []
    task = Task(runs.append, lambda: prepared.append(None), least=28, most=600)
    timed_by_worker(task, 28 * 50)
    assert runs == [588, 588, 224]
    assert len(prepared) == 3


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("rounds", 0, "expected 1 or more"), ("seconds", 0.0, "more than 0"), ("out", Path("x.svg"), "ends in .json")],
)
def test_settings_that_measure_nothing_are_refused(option, value, message):
    with pytest.raises(ValueError, match=message):
        SpeedSettings(**{option: value})
