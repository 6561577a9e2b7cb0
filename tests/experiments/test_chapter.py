"""The chapter's worked examples give their true figures, to the last digits of float64."""

import html
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import chapter
from experiments.harness import store
from experiments.harness.experiment import Settings
from experiments.harness.report import write_report
from experiments.harness.report.mathematics import set_equations

CHAPTER = json.loads((Path(__file__).parents[1] / "data" / "chapter.json").read_text())
LARGEST_RELATIVE_ERROR = 1e-12


@pytest.fixture(scope="module", params=["manual", "autodiff"])
def figures(request):
    return chapter.true_figures(Settings(grad=request.param))


@pytest.mark.parametrize("example", [name for name, entry in CHAPTER.items() if "computed" in entry])
def test_true_figures(example, figures):
    expected = CHAPTER[example]["computed"]
    assert jax.tree.structure(figures[example]) == jax.tree.structure(expected)
    jax.tree.map(
        lambda ours, true: np.testing.assert_allclose(ours, true, rtol=LARGEST_RELATIVE_ERROR, atol=1e-12),
        figures[example],
        expected,
    )


@pytest.fixture(scope="module")
def result(figures):
    """The experiment's result, after ``figures`` has compiled most of its programs."""
    return chapter.run(Settings(grad="autodiff"))


def test_the_verdicts_count_the_wrong_figures(result):
    verdicts = {one.claim.name: one.verdict for one in result.results}
    assert verdicts["printed-neuron"] == "holds"
    assert verdicts["printed-optimizers"] == verdicts["xor-gradient"] == "fails"


def test_the_page_holds_every_worked_example(result, tmp_path):
    parts = [store.outcome_record(outcome) for outcome in result.outcomes]
    record = store.experiment_record(chapter.EXPERIMENT, result.settings, parts, {})
    page = write_report([record], tmp_path).read_text(encoding="utf-8")
    for outcome in result.outcomes:
        assert outcome.board in html.unescape(page)
        assert set_equations(outcome.text) in page


def test_every_example_is_covered(figures):
    assert set(figures) == set(CHAPTER)


@pytest.mark.parametrize(
    ("printed", "true", "right"), [("0.5173", 0.51704, False), ("-0.0", 0.0, True), ("2.3000", 2.3, True)]
)
def test_a_printed_figure_is_compared_at_its_own_digits(printed, true, right):
    assert chapter.examples.compare(printed, true).right is right
