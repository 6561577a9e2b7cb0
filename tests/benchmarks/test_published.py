"""The published mistakes: their sources, that each is a mistake without the checker's word, and the table's counts."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks.published import REPORTS
from experiments.benchmarks.published.__main__ import Answer, PublishedSettings, Result, in_dtypes, row, summary
from experiments.benchmarks.published.report import CAUSES, Report, Rule, UsualTest, passes_usual_test, random_like

STEP = 1e-5


@pytest.fixture
def usual_promotion(untouched_configuration):
    """JAX's own promotion, which the published code relies on, and float64."""
    jax.config.update("jax_enable_x64", True)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_every_report_has_a_source_of_its_own():
    assert len(REPORTS) >= 25
    for report in REPORTS:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", report.source), report.source
        assert report.title, report.source
    for values in ([report.source for report in REPORTS], [report.case.name for report in REPORTS]):
        assert len(set(values)) == len(values)


def test_every_report_names_the_causes_of_its_mistake():
    for report in REPORTS:
        assert report.case.causes, report.case.name
        assert report.case.causes <= CAUSES, report.case.name


def as_loss(case, params, args):
    """A scalar loss of the parameters, its right gradient and its wrong one."""
    if not isinstance(case, Rule):
        return (
            lambda params: case.loss_fn(params, *args),
            lambda params: case.right(params, *args),
            lambda params: case.grad_fn(params, *args),
        )
    cotangent = random_like(jax.eval_shape(case.function, params, *args))
    if jnp.iscomplexobj(cotangent):
        cotangent = cotangent * (0.6 + 0.8j)
    return (
        lambda params: (case.function(params, *args) * cotangent).sum().real,
        lambda params: case.right(params, cotangent, *args),
        lambda params: case.vjp(params, cotangent, *args),
    )


def difference(wrong, right):
    """The largest difference relative to the right leaf; infinite for another shape or dtype."""
    if (wrong.shape, wrong.dtype) != (right.shape, right.dtype):
        return np.inf
    largest = np.abs(wrong - right).max() / (np.abs(right).max() or 1.0)
    return np.inf if np.isnan(largest) else largest


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("report", REPORTS, ids=lambda report: report.case.name)
def test_the_twin_is_right_and_the_mistake_is_not(report, usual_promotion):
    case = report.case
    params, args = case.make("float64")
    if isinstance(case, Rule):
        # A rule gives no gradient for its other arguments.
        assert not any(jnp.issubdtype(arg.dtype, jnp.floating) for arg in args)
    loss, right, wrong = as_loss(case, params, args)
    by_autodiff, by_twin, by_mistake = jax.jit(lambda params: (jax.grad(loss)(params), right(params), wrong(params)))(
        params
    )
    assert jax.tree.structure(by_twin) == jax.tree.structure(params)
    gaps = {name: difference(np.asarray(by_twin[name]), np.asarray(by_autodiff[name])) for name in params}
    assert max(gaps.values()) < 1e-9, gaps
    if not case.autodiff_differs:
        # Slopes along a direction, for autodiff may share a mistake with the twin.
        direction = jax.tree.map(random_like, params)
        along = jax.jit(lambda step: loss(jax.tree.map(lambda leaf, to: leaf + step * to, params, direction)))
        slope = (along(STEP) - along(-STEP)) / (2 * STEP)
        expected = sum((by_twin[name] * direction[name]).sum().real for name in params)
        np.testing.assert_allclose(slope, expected, rtol=1e-6, atol=1e-7)
    gaps = {name: difference(np.asarray(by_mistake[name]), np.asarray(by_twin[name])) for name in params}
    at_mistake = max(gaps.values()) if case.leaf is None else gaps[case.leaf[2:-2]]
    assert at_mistake > 1e-4, gaps


@pytest.mark.benchmarks_smoke
@pytest.mark.parametrize("report", [report for report in REPORTS if report.usual], ids=lambda report: report.case.name)
def test_the_test_of_the_project_can_fail(report, usual_promotion):
    assert passes_usual_test(report) in (True, False)
    case, usual = report.case, report.usual
    gradient = usual.gradient or (case.vjp if isinstance(case, Rule) else case.grad_fn)

    def doubled(*given):
        return jax.tree.map(lambda leaf: 2 * leaf + 1, gradient(*given))

    assert not passes_usual_test(report._replace(usual=usual._replace(gradient=doubled)))


def example(wrong_cause, flagged=True, twin_flagged=False):
    make = lambda dtype: ({"x": jnp.ones(2, dtype)}, ())  # noqa: E731
    rule = Rule("square", "theme", lambda p: p["x"], None, None, make, frozenset({"scaled", "unit"}), "['x']")
    usual = UsualTest("cotangent of ones", "assumed")
    wrong, twin = Answer(flagged, wrong_cause, "", 0.0), Answer(twin_flagged, None, "", 0.0)
    return Result(Report(rule, "owner/name#1", "title", usual), "float64", wrong, twin)


def test_the_counts_tell_named_unnamed_and_misnamed_apart():
    results = [example(cause) for cause in ("scaled", "unit", "unknown", "sign")]
    results.append(example(None, flagged=False, twin_flagged=True))
    counts = summary(results, {"first": True, "second": False, "third": None})
    assert counts == {
        "float64": {
            "reports": 5,
            "caught": 4,
            "cause named": 2,
            "named by its place alone": 1,
            "cause named wrongly": 1,
            "twins passed": 4,
        },
        "projects' own tests": {"known": 2, "caught": 1},
    }


def test_a_row_separates_the_dtypes_that_differ():
    results = [example("scaled"), example("unknown", twin_flagged=True)._replace(dtype="float32")]
    assert row(results, True) == (
        "square",
        "owner/name#1",
        "yes",
        "scaled (float64), unknown (float32)",
        "passed",
        "yes (float64), NO (float32)",
    )
    assert in_dtypes({"float64": "yes", "float32": "yes"}) == "yes"


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="no report or theme is called nothing"):
        PublishedSettings(only=("nothing",))
