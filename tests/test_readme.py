"""The README's Python runs as a reader would run it, and prints what the README says it prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```\n+```text\n(.*?)```", README, flags=re.DOTALL)


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
