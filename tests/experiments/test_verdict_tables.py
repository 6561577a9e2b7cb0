"""The tables of claims are those of the experiments, and README.md has their counts."""

import re

import pytest

from experiments.harness.claims import Section
from experiments.harness.report import verdict_tables
from experiments.harness.topics import load, ordered_names, topic_names

ROW = r"^\| (.*) \| [^|]* \| [^|]* \| ([^|]*) \|$"


@pytest.fixture(scope="module")
def rows():
    found = re.findall(ROW, verdict_tables.PAGE.content(), flags=re.MULTILINE)
    return {sentence.strip(): verdict for sentence, verdict in found}


def test_every_claim_stands_on_the_page_with_a_verdict(rows):
    for name in topic_names():
        for claim in load(name).claims:
            assert rows[verdict_tables.escape(claim.sentence)] in verdict_tables.VERDICTS.values()


def test_the_page_lists_claims_by_section_in_the_order_of_the_topics(rows):
    claims = [claim for name in ordered_names() for claim in load(name).claims]
    expected = [
        verdict_tables.escape(claim.sentence) for section in Section for claim in claims if claim.section == section
    ]
    assert [sentence for sentence in rows if sentence in expected] == expected


def test_the_readme_counts_the_verdicts_of_the_page(rows):
    words = {written: word for word, written in verdict_tables.VERDICTS.items()}
    results = [{"verdict": words[verdict]} for verdict in rows.values() if verdict in words]
    assert len(results) == sum(len(load(name).claims) for name in topic_names())
    assert verdict_tables.SUMMARY.content() == verdict_tables.summary(results)
