"""The README's table of claims is that of the experiments."""

from pathlib import Path

from experiments.__main__ import NAMES
from experiments.report import readme
from experiments.runner import load

TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_claim_stands_in_the_readme_with_a_verdict():
    table = TEXT.partition(readme.BEGIN)[2].partition(readme.END)[0]
    rows = {
        line.split("|")[1].strip(): line.split("|")[4].strip() for line in table.splitlines() if line.count("|") == 5
    }
    for name in NAMES:
        for claim in load(name).claims:
            assert rows[claim.sentence] in readme.WORDS.values()
