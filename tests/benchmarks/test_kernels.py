"""The comparison with mpmath, and the published reports through the plugin, on a few of each."""

import jax
import pytest

from experiments.benchmarks.published import REPORTS
from experiments.benchmarks.published.plugin import call_fixture, passes_sum

pytestmark = pytest.mark.benchmarks_smoke


@pytest.fixture(autouse=True)
def usual_promotion(untouched_configuration):
    """JAX's own promotion, and float64."""
    jax.config.update("jax_enable_x64", True)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


def test_mpmath_finds_a_quotient_that_cancels_and_passes_kinks():
    from experiments.benchmarks.kernels.__main__ import compare_scalar
    from experiments.benchmarks.kernels.scalar import SCALAR_RULES, derivatives

    rules = {rule.name: rule for rule in SCALAR_RULES}
    assert derivatives(rules["relu"], 0.0) == (0.0, 1.0)
    assert compare_scalar(rules["relu"]).kind == ""
    naive = rules["expm1"]._replace(function=lambda x: jax.numpy.exp(x) * x / x - 1, points=(1.0, 2.0))
    assert compare_scalar(naive).kind == ""
    wrong = naive._replace(function=lambda x: (jax.numpy.exp(x) - 1) / x**2 * x**2, points=(1e-30, 1.0))
    found = compare_scalar(wrong)
    assert found.kind == "fault"
    assert "float32 at x = 1e-30" in found.text


def test_a_published_report_fails_and_its_twin_passes():
    report = next(report for report in REPORTS if report.case.name == "broadcast_averaged")
    wrong, twin = (call_fixture(report, "float32", is_twin) for is_twin in (False, True))
    assert wrong.fails
    assert wrong.cause in report.case.causes
    assert not twin.fails
    assert not passes_sum(report, "float32")
