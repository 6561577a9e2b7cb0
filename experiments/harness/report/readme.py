"""The README's table of claims, written from what was measured."""

from collections.abc import Sequence

from experiments.harness.claims import Section, number
from experiments.harness.readme_section import marks
from experiments.harness.store import Record

MARKS = marks("claims")
WORDS = {"holds": "holds", "fails": "**fails**", "undecided": "*undecided*"}


def write(records: Sequence[Record]) -> None:
    """Put the table between its marks."""
    MARKS.write(table(records))


def table(records: Sequence[Record]) -> str:
    """The verdicts counted by the chapter's sections, every claim folded below, and how it was measured."""
    parts = [part for record in records for part in record["parts"]]
    findings = [one for part in parts for one in part.get("findings", ())]
    sections = {section.value: [one for one in findings if one["section"] == section.value] for section in Section}
    counted = ["| what the chapter speaks of | hold | fail | undecided |", "|---|---:|---:|---:|"]
    counted += [f"| {title} | {' | '.join(map(str, counts(of)))} |" for title, of in sections.items() if of]
    counted += [f"| **all {len(findings)} claims** | {' | '.join(f'**{count}**' for count in counts(findings))} |"]
    told = ["| claim | allowed | measured | verdict |", "|---|---|---|---|"]
    for title, of in sections.items():
        told += [f"| **{title}** | | | |", *map(row, of)] if of else []
    on = next(part["environment"] for part in parts if "environment" in part)
    run = "--full --readme" if records[0]["settings"]["full"] else "--readme"
    source = (
        f"*`python -m experiments {run}`: estimates with their 95% intervals over seeds. Claims and thresholds stood "
        f"before this run; some were sharpened after smaller trial runs. jax {on['jax']}, python {on['python']}, "
        f"{on['device']}, {on['cores']} cores.*"
    )
    folded = ["<details>", "<summary>Every claim with its verdict</summary>", "", *told, "", "</details>"]
    return "\n".join([*counted, "", *folded, "", source])


def counts(findings: Sequence[Record]) -> list[int]:
    return [sum(one["verdict"] == word for one in findings) for word in WORDS]


def row(finding: Record) -> str:
    interval = "" if finding["statistic"] == "exact" else f" ({number(finding['low'])} to {number(finding['high'])})"
    return (
        f"| {escaped(finding['sentence'])} | {finding['threshold']} | {number(finding['estimate'])}{interval} | "
        f"{WORDS[finding['verdict']]} |"
    )


def escaped(sentence: str) -> str:
    """A bar in a sentence is no border of a table."""
    return sentence.replace("|", "\\|")
