"""The comparison with PyTorch, and the table of the largest differences at the end of the session.

Without PyTorch this file fails to import, and with it the session: nothing is skipped.
"""

import json
import shlex
import sys
from pathlib import Path

import pytest
import torch

from experiments.benchmarks.speed.machine import facts
from tests.cases import relative_gap

LIMIT = 1e-10
OUT = Path("report/torch_parity.json")
torch.set_num_threads(1)


@pytest.fixture
def parity(record_property):
    """Assert that named trees of arrays are those of PyTorch, and record the differences for the table.

    A difference is the largest one of an entry over the largest entry of PyTorch's tree.
    """

    def check(name, ours, theirs, limit=LIMIT):
        assert ours.keys() == theirs.keys()
        gaps = {part: relative_gap(ours[part], theirs[part]) for part in ours}
        record_property("parity", {"name": name, "limit": limit, "gaps": gaps})
        assert all(gap <= limit for gap in gaps.values()), gaps

    return check


def recorded(terminalreporter) -> list[dict]:
    """Return what the tests recorded, by name."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [value for report in reports for name, value in getattr(report, "user_properties", []) if name == "parity"]
    return sorted(rows, key=lambda row: row["name"])


def pytest_terminal_summary(terminalreporter):
    rows = recorded(terminalreporter)
    if not rows:
        return
    terminalreporter.section("largest differences from PyTorch, of the largest entry")
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        parts = ", ".join(f"{part} {gap:.1e}" for part, gap in row["gaps"].items())
        mark = "" if max(row["gaps"].values()) <= row["limit"] else f"  above {row['limit']:.0e}"
        terminalreporter.write_line(f"{row['name']:<{width}}  {parts}{mark}")
    largest = max(rows, key=lambda row: max(row["gaps"].values()) / row["limit"])
    terminalreporter.write_line(
        f"{len(rows)} comparisons; the one nearest its limit is {largest['name']}, "
        f"{max(largest['gaps'].values()):.1e} of {largest['limit']:.0e}."
    )
    OUT.parent.mkdir(exist_ok=True)
    about = {"command": shlex.join(["pytest", *sys.argv[1:]]), "environment": facts(), "comparisons": rows}
    OUT.write_text(json.dumps(about, indent=1), encoding="utf-8")
    terminalreporter.write_line(f"written: {OUT}")
