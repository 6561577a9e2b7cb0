"""The hooks of funcnn's pytest plugin: an option, a marker and the fixture ``gradcheck``.

pytest loads this module in every run where funcnn is installed, so it imports pytest alone. It stands beside the
package because an import of ``funcnn.pytest_plugin`` imports funcnn, and with it JAX. The fixture imports both.
"""

import importlib.util

import pytest

_RECORDS = "_gradcheck_records"


def pytest_addoption(parser):
    group = parser.getgroup("funcnn", "gradient checks (funcnn)")
    group.addoption(
        "--gradcheck-report",
        metavar="PAGE.html",
        default=None,
        help="write a page with a row for each gradient check of the run",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "gradcheck_sweep(shapes=..., dtypes=..., options=...): the cases that the fixture gradcheck checks beside the "
        "given arguments; without arguments, or without the marker, they are derived from the given ones",
    )
    path = config.getoption("--gradcheck-report")
    if path and not hasattr(config, "workerinput"):
        if importlib.util.find_spec("jinja2") is None:
            raise pytest.UsageError(
                "--gradcheck-report: expected jinja2, got none. Install it: pip install 'funcnn[report]'."
            )
        config.pluginmanager.register(_ReportPage(path), "funcnn_gradcheck_report")


@pytest.fixture
def gradcheck(request):
    """Check gradients and rules, sweep their arguments, and fail the test with the report.

    ``gradcheck.rule(function, *args, reference=None)``, ``.vjp(function, vjp, *args)``,
    ``.gradients(loss_fn, grad_fn, params, *args)`` and ``.layer(layer, x)``.
    """
    from funcnn.pytest_plugin.fixture import Gradcheck, sweep_of_marker

    checks = Gradcheck(sweep_of_marker(request.node.get_closest_marker("gradcheck_sweep")))
    setattr(request.node, _RECORDS, checks.records)
    return checks


@pytest.hookimpl(hookwrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    records = getattr(item, _RECORDS, None)
    if records and call.when == "call":
        for record in records:
            item.user_properties.append(("gradcheck.verdict", record["verdict"]))
            item.user_properties.append(("gradcheck.cause", record["cause"]))
    outcome = yield
    if records is not None and call.when == "call":
        report = outcome.get_result()
        report.gradcheck = records
        _compare_with_expected_cause(report, records)


def _compare_with_expected_cause(report, records):
    """Fail a test that is expected to fail by a cause, ``xfail(reason="scaled: …")``, and fails by another one."""
    expected = getattr(report, "wasxfail", "").partition(":")[0].strip()
    if not expected or report.outcome != "skipped":
        return
    from funcnn.pytest_plugin.fixture import is_cause

    causes = [record["cause"] for record in records if record["cause"]]
    if is_cause(expected) and expected not in causes:
        found = ", ".join(causes) or "no gradient check that failed"
        report.outcome = "failed"
        del report.wasxfail
        report.sections.append(
            ("gradcheck", f"xfail(reason={expected!r}) expects a failure by this cause, got {found}.")
        )


class _ReportPage:
    """The rows of ``--gradcheck-report``, out of the reports of all tests, those of other processes included."""

    def __init__(self, path):
        self.path, self.rows = path, []

    def pytest_runtest_logreport(self, report):
        if report.when == "call":
            self.rows += [{"test": report.nodeid, **record} for record in getattr(report, "gradcheck", ())]

    def pytest_sessionfinish(self):
        from funcnn.pytest_plugin.page import write_run

        write_run(self.path, self.rows)

    def pytest_terminal_summary(self, terminalreporter):
        terminalreporter.write_line(f"gradient checks: {len(self.rows)}, written to {self.path}")
