"""The README's table of claims is that of the experiments."""

import re
from pathlib import Path

from experiments.__main__ import NAMES
from experiments.report import readme
from experiments.runner import load

ROW = r"^\| (.*) \| [^|]* \| [^|]* \| ([^|]*) \|$"
TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_every_claim_stands_in_the_readme_with_a_verdict():
    table = TEXT.partition(readme.MARKS.begin)[2].partition(readme.MARKS.end)[0]
    rows = {sentence.strip(): verdict for sentence, verdict in re.findall(ROW, table, flags=re.MULTILINE)}
    for name in NAMES:
        for claim in load(name).claims:
            assert rows[readme.escaped(claim.sentence)] in readme.WORDS.values()
