"""The report: every claim with its verdict, on one page that needs nothing beside it."""

from experiments.harness.report.page import write_report as write_report
