"""README.md is short, its links lead somewhere, its tables are those of the site, and its Python runs as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.benchmarks import reliability

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", README, flags=re.DOTALL)
LINKS = re.findall(r"\]\(((?!https?:)[^)#]+)\)", README)


def test_every_block_of_python_shows_its_output():
    assert len(EXAMPLES) == README.count("```python") >= 2


@pytest.mark.parametrize(("code", "output"), EXAMPLES)
def test_examples_print_what_they_say(code, output):
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    assert without_times(run.stdout).split() == without_times(output).split()


def without_times(text):
    """How long a check took is another number every time."""
    return re.sub(r"in [\d.]+\s+m?s$", "in … s", text.strip())


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_files_that_are_linked_exist():
    assert len(LINKS) > 10
    assert [link for link in LINKS if not (ROOT / link).is_file()] == []


def section(page, name):
    """Return the text between a section's markers."""
    return (ROOT / page).read_text(encoding="utf-8").partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]


def test_detection_has_the_figures_of_the_page():
    rows = [line.strip("| ").split(" | ") for line in section("README.md", "detection").strip().splitlines()[2:]]
    whole = section("docs/results/detection.md", "detection")
    assert len(rows) >= 5
    for checker, *figures in rows:
        assert f"| {checker} | float32 | catalogue | {' | '.join(figures)} | " in whole


def test_reliability_has_the_figures_of_the_page():
    rows = section("README.md", "reliability")
    assert rows.count("\n| ") >= 5
    assert rows == section("docs/results/reliability.md", "reliability")
    survival, doctor = reliability.record_of("survival"), reliability.record_of("doctor")
    assert rows.strip() == reliability.summary(survival, doctor)
    assert section("docs/results/reliability.md", "doctor").strip() == reliability.by_kind(doctor)
