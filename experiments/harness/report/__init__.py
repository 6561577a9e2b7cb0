"""The report: all claims with their verdicts on one self-contained page."""

from experiments.harness.report.page import write_report as write_report
