"""The runner and the store: what is measured again, the report, and errors."""

import html
import io
import json
import re
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

import experiments
import funcnn as fnn
from experiments.__main__ import AllSettings, main, parse_options
from experiments.harness import store
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.console import progress_bar
from experiments.harness.experiment import (
    Experiment,
    Outcome,
    Part,
    Settings,
    WrongGradientError,
    checked_value_and_grad,
    run_part,
)
from experiments.harness.report.mathematics import set_equations
from experiments.harness.runner import count_verdicts, run_command_line
from experiments.harness.topics import load, topic_names, topic_path

QUICK = Settings()
CLAIM = Claim(name="one", sentence="One.", section=Section.WHAT, quantity="units", at_most=1, seeds=7, quick_seeds=3)


def test_quick_and_full_differ_in_seeds_and_steps():
    full = Settings(full=True)
    assert (QUICK.seeds_of(CLAIM), full.seeds_of(CLAIM), Settings(seeds=5).seeds_of(CLAIM)) == (3, 7, 5)
    assert (QUICK.steps(quick=10, full=100), full.steps(quick=10, full=100)) == (10, 100)
    assert len(QUICK.keys_of(CLAIM)) == 3


@pytest.mark.parametrize("name", topic_names())
def test_every_experiment_is_whole(name):
    experiment = load(name)
    assert experiment.name == name
    assert experiment.title
    assert experiment.introduction
    assert experiment.claims


def test_every_section_of_the_chapter_has_a_claim():
    assert {claim.section for name in topic_names() for claim in load(name).claims} == set(Section)


def test_no_two_claims_have_one_name():
    names = [claim.name for name in topic_names() for claim in load(name).claims]
    assert len(names) == len(set(names))


def test_a_part_judges_its_own_claims_and_no_other():
    silent = Experiment(name="x", title="x", introduction="x", parts=(Part("x", (CLAIM,), lambda settings: Outcome()),))
    with pytest.raises(ValueError, match="expected verdicts on its own claims"):
        silent.run(QUICK)


def test_a_part_runs_in_its_experiments_precision():
    def part(settings):
        return Outcome((judge(CLAIM, [float(jnp.zeros(()).dtype == jnp.float32)] * 2),))

    before = jax.config.jax_enable_x64
    for precision, expected in (("float32", 1.0), ("float64", 0.0)):
        one = Part("x", (CLAIM,), part)
        experiment = Experiment(name="x", title="x", introduction="x", parts=(one,), precision=precision)
        assert run_part(experiment, one, QUICK).results[0].estimate == expected
    assert jax.config.jax_enable_x64 == before


def test_a_wrong_backward_pass_stops_an_experiment_before_it_trains():
    identity = fnn.identity
    wrong = identity._replace(backward=lambda residuals, dy: ((), 2 * identity.backward(residuals, dy)[1]))
    model, right = fnn.perceptron(3, wrong), fnn.perceptron(3, identity)
    batch = fnn.Batch(jnp.arange(12.0).reshape(4, 3) / 12, jnp.array([[0.0], [1.0], [0.0], [1.0]]))
    with pytest.raises(WrongGradientError, match="nothing was trained"):
        checked_value_and_grad(QUICK, model, fnn.mean_squared_error, batch)
    assert checked_value_and_grad(replace(QUICK, grad="autodiff"), model, fnn.mean_squared_error, batch)
    assert checked_value_and_grad(QUICK, right, fnn.mean_squared_error, batch) is fnn.manual_value_and_grad


def test_the_digest_depends_on_settings_and_code(tmp_path, monkeypatch):
    before = store.digest("digits", QUICK)
    assert store.digest("digits", QUICK) == before
    assert store.digest("digits", replace(QUICK, seed=1)) != before
    copy = tmp_path / "experiments"
    shutil.copytree(Path(experiments.__file__).parent, copy, ignore=shutil.ignore_patterns("benchmarks", "gallery"))
    monkeypatch.setattr(experiments, "__path__", [str(copy)])
    assert store.digest("digits", QUICK) == before
    for changed in ("digits.py", "shared/image_classifier.py", "harness/claims.py"):
        before = store.digest("digits", QUICK)
        with (copy / changed).open("a", encoding="utf-8") as script:
            script.write("# Changed.\n")
        assert store.digest("digits", QUICK) != before
    before = store.digest("digits", QUICK)
    (copy / "chapter.py").write_text("# Changed.\n", encoding="utf-8")
    assert store.digest("digits", QUICK) == before


def test_an_experiments_code_is_all_that_it_imports():
    names = {path.name for path in store.source_files(topic_path("digits"))}
    assert {"digits.py", "image_classifier.py", "data.py", "claims.py", "figures.py"} <= names
    assert "chapter.py" not in names


def test_the_command_to_repeat_a_run_says_what_was_given():
    assert store.command_line("xor", QUICK) == "python -m experiments xor"
    given = replace(QUICK, full=True, seeds=9, grad="autodiff")
    assert store.command_line("xor", given) == "python -m experiments xor --full --seeds 9 --grad autodiff"


@pytest.fixture(scope="module")
def measured_once(tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as environment:
        # The measuring process is a new one, which compiles as quickly as the tests do.
        environment.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
        return out, main(AllSettings(names=("optimizers",), seeds=2, out=out, jobs=1))


@pytest.mark.benchmarks_smoke
def test_a_second_run_measures_nothing(measured_once, monkeypatch):
    out, status = measured_once
    assert status == 0
    monkeypatch.setattr("experiments.harness.runner.ProcessPoolExecutor", None)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert main(AllSettings(names=("optimizers",), seeds=2, out=out)) == 0
    assert (out / "index.html").read_text(encoding="utf-8") == page


@pytest.mark.benchmarks_smoke
def test_the_numbers_stand_beside_the_page(measured_once):
    out, _ = measured_once
    [record] = json.loads((out / "results.json").read_text(encoding="utf-8"))
    verdicts = {one["name"]: one["verdict"] for part in record["parts"] for one in part["findings"]}
    assert verdicts["optimizers-momentum-ravine"] == "holds"
    assert verdicts["optimizers-bowl-ranking"] == "fails"


@pytest.mark.benchmarks_smoke
def test_the_page_fetches_nothing_and_says_everything(measured_once):
    out, _ = measured_once
    page = (out / "index.html").read_text(encoding="utf-8")
    before_scripts = html.unescape(page.partition("<footer>")[0])
    assert 'src="http' not in page
    assert '<link rel="stylesheet"' not in page
    for claim in load("optimizers").claims:
        assert html.unescape(set_equations(claim.sentence)) in before_scripts
    assert "python -m experiments optimizers --seeds 2" in before_scripts


@pytest.mark.parametrize("options", [("--seeds", "1"), ("--quick", "--full"), ("magic",), ("--jobs", "0")])
def test_wrong_options_are_refused_in_a_sentence(options, capsys):
    with pytest.raises(SystemExit) as refused:
        parse_options(list(options))
    assert refused.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_options_are_named(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for option in ("--full", "--seeds", "--seed", "--grad", "manual", "autodiff", "--out", "--list", "--jobs"):
        assert option in shown


def first_line(capsys):
    """Return the first line that is printed from now on."""
    deadline = time.monotonic() + 20
    printed = ""
    while "\n" not in printed and time.monotonic() < deadline:
        time.sleep(0.01)
        printed += capsys.readouterr().out
    return printed.partition("\n")[0]


def test_lines_of_progress_where_there_is_no_terminal(capsys):
    with progress_bar("claims judged", seconds=0.01) as bar:
        bar.add_task("moons", total=8, completed=3)
        assert capsys.readouterr().out.startswith("3 of 8 claims judged after 0 seconds: moons\n")
        assert re.fullmatch(r"3 of 8 claims judged after \d+ seconds: moons", first_line(capsys))


def test_every_task_begins_and_ends_with_its_counts_where_there_is_no_terminal(capsys):
    long = " ".join(["spirals"] * 20)
    with progress_bar("claims judged") as bar:
        bar.update(bar.add_task("moons", total=8), completed=8)
        bar.add_task(long, total=8, completed=3)
        list(bar.track(range(5), description="waves"))
        assert capsys.readouterr().out.splitlines() == [
            f"{done} claims judged after 0 seconds: {name}"
            for done, name in (("0 of 8", "moons"), ("3 of 8", long), ("0 of 5", "waves"))
        ]
    # rich before 15 ends with an empty line.
    moons, spirals, waves = capsys.readouterr().out.strip().splitlines()
    assert re.fullmatch(r"8 of 8 claims judged after \d+ seconds: moons", moons)
    assert re.fullmatch(rf"3 of 8 claims judged after \d+ seconds: {long}", spirals)
    assert re.fullmatch(r"5 of 5 claims judged after \d+ seconds: waves", waves)


def test_a_terminal_shows_a_bar_and_no_lines(monkeypatch):
    terminal = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, width=100)
    monkeypatch.setattr("experiments.harness.console.console", terminal)
    with progress_bar("claims judged", seconds=0.0) as bar:
        bar.add_task("moons", total=8, completed=3)
    assert "moons" in terminal.file.getvalue()
    assert "claims judged after" not in terminal.file.getvalue()


def test_a_topic_says_where_it_stands_and_ends_with_its_counts(tmp_path, monkeypatch, capsys):
    lines = []

    def part(*values):
        claims = [replace(CLAIM, name=f"claim {value}") for value in values]

        def measure(settings):
            lines.append(first_line(capsys))
            return Outcome(tuple(judge(claim, [value] * 2) for claim, value in zip(claims, values, strict=True)))

        return Part("A part", tuple(claims), measure)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["x"])
    monkeypatch.setattr("experiments.harness.runner.enable_compilation_cache", lambda folder: None)
    monkeypatch.setattr("experiments.harness.runner.write_report", lambda *given: "x.html")
    monkeypatch.setattr("experiments.harness.runner.progress_bar", partial(progress_bar, seconds=0.01))
    run_command_line(Experiment(name="x", title="x", introduction="x", parts=(part(0.0, 0.5), part(2.0))))
    assert lines[0] == "0 of 3 claims judged after 0 seconds"
    printed = capsys.readouterr().out
    assert "3 of 3 claims judged after" in printed
    assert printed.splitlines()[-2:] == ["figures: x.html", "3 claims judged, 2 hold, 1 fail, 0 undecided"]


def test_verdicts_are_counted():
    findings = [{"verdict": verdict} for verdict in ("holds", "fails", "holds")]
    assert count_verdicts([{"parts": [{"findings": findings}, {}]}]) == "2 hold, 1 fail, 0 undecided"
