"""The README's table of claims is that of the experiments."""

import re
from pathlib import Path

import pytest

from experiments.harness.claims import Section
from experiments.harness.report import readme
from experiments.harness.topics import load, ordered_names, topic_names

ROW = r"^\| (.*) \| [^|]* \| [^|]* \| ([^|]*) \|$"
TEXT = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows():
    table = TEXT.partition(readme.SECTION.begin)[2].partition(readme.SECTION.end)[0]
    return {sentence.strip(): verdict for sentence, verdict in re.findall(ROW, table, flags=re.MULTILINE)}


def test_every_claim_stands_in_the_readme_with_a_verdict(rows):
    for name in topic_names():
        for claim in load(name).claims:
            assert rows[readme.escape(claim.sentence)] in readme.VERDICTS.values()


def test_the_readme_lists_claims_by_section_in_the_order_of_the_topics(rows):
    claims = [claim for name in ordered_names() for claim in load(name).claims]
    expected = [readme.escape(claim.sentence) for section in Section for claim in claims if claim.section == section]
    assert [sentence for sentence in rows if sentence in expected] == expected
