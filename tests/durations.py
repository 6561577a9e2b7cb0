"""Seconds of each test file, before and after, in ``tests/DURATIONS.md``.

::

    python -m pytest -n 2 --dist loadfile --durations=0 -q > after.txt
    python -m tests.durations after.txt

writes the column "after" and the line above the table. ``tests/conftest.py`` reads that column: xdist's workers begin
with the files that take longest.
"""

import re
import sys
from collections import Counter
from pathlib import Path

PAGE = Path(__file__).with_name("DURATIONS.md")
DOCSTRINGS = "docstrings of funcnn"
DURATION = re.compile(r"^([\d.]+)s (?:call|setup|teardown) +([^:\s]+)::", re.MULTILINE)
SUMMARY = re.compile(r"^(?:=+ )?(\d+ passed.*? in [\d.]+s)", re.MULTILINE)
ROW = re.compile(r"^\| (.+?) +\| +([\d.–]+) \| +([\d.–]+) \|$", re.MULTILINE)
NONE = "–"


def file_of(test_id: str) -> str:
    """The row of a test: its file, or one row for every docstring."""
    path = test_id.partition("::")[0]
    return DOCSTRINGS if path.startswith("funcnn/") else path


def seconds_by_file(output: str) -> dict[str, float]:
    """Seconds of each file, out of what ``pytest --durations=0`` prints."""
    found: Counter[str] = Counter()
    for seconds, path in DURATION.findall(output):
        found[file_of(path)] += float(seconds)
    return dict(found)


def summary(output: str) -> str:
    """The last line of pytest's output: how many tests, in which time."""
    return SUMMARY.findall(output)[-1]


def read(page: str) -> dict[str, tuple[float | None, float | None]]:
    """The table's rows: seconds before and after, ``None`` where the file did not exist."""

    def number(cell: str) -> float | None:
        return None if cell == NONE else float(cell)

    return {path: (number(before), number(after)) for path, before, after in ROW.findall(page)}


def latest(page: Path = PAGE) -> dict[str, float]:
    """Seconds of each file by the newest measurement of the page; empty without a page."""
    rows = read(page.read_text(encoding="utf-8")) if page.exists() else {}
    return {path: (before or 0.0) if after is None else after for path, (before, after) in rows.items()}


def updated(page: str, output: str) -> str:
    """The page with the column "after" and its summary replaced by ``output``'s."""
    before = {path: seconds for path, (seconds, _) in read(page).items()}
    after = seconds_by_file(output)
    paths = sorted(before | after, key=lambda path: (-(after.get(path) or 0.0), -(before.get(path) or 0.0), path))
    width = max(map(len, paths))
    head = page[: page.index("| file ")]
    head = re.sub(r"^- After: .*$", f"- After: {summary(output)}", head, flags=re.MULTILINE)

    def cell(seconds: float | None) -> str:
        return f"{NONE if seconds is None else format(seconds, '.1f'):>6}"

    lines = [f"| {'file':<{width}} | before |  after |", f"|:{'-' * width}-|-------:|-------:|"]
    lines += [f"| {path:<{width}} | {cell(before.get(path))} | {cell(after.get(path))} |" for path in paths]
    return head + "\n".join(lines) + "\n"


def main(output: Path) -> None:
    text = updated(PAGE.read_text(encoding="utf-8"), output.read_text(encoding="utf-8"))
    PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
