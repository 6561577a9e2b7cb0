"""The README's table of claims, written from what was measured."""

from collections.abc import Sequence

from experiments.harness.claims import Section, format_number
from experiments.harness.readme_section import readme_section
from experiments.harness.store import Record

SECTION = readme_section("claims")
VERDICTS = {"holds": "holds", "fails": "**fails**", "undecided": "*undecided*"}


def write(records: Sequence[Record]) -> None:
    """Put the table between its marks."""
    SECTION.write(table(records))


def table(records: Sequence[Record]) -> str:
    """The verdicts counted by the chapter's sections, every claim folded below, and how it was measured."""
    parts = [part for record in records for part in record["parts"]]
    results = [one for part in parts for one in part.get("findings", ())]
    sections = {section.value: [one for one in results if one["section"] == section.value] for section in Section}
    counted = ["| what the chapter speaks of | hold | fail | undecided |", "|---|---:|---:|---:|"]
    counted += [f"| {title} | {' | '.join(map(str, counts(of)))} |" for title, of in sections.items() if of]
    counted += [f"| **all {len(results)} claims** | {' | '.join(f'**{count}**' for count in counts(results))} |"]
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


def counts(results: Sequence[Record]) -> list[int]:
    return [sum(one["verdict"] == word for one in results) for word in VERDICTS]


def row(result: Record) -> str:
    interval = (
        ""
        if result["statistic"] == "exact"
        else f" ({format_number(result['low'])} to {format_number(result['high'])})"
    )
    return (
        f"| {escape(result['sentence'])} | {result['threshold']} | {format_number(result['estimate'])}{interval} | "
        f"{VERDICTS[result['verdict']]} |"
    )


def escape(sentence: str) -> str:
    """A bar in a sentence is no border of a table."""
    return sentence.replace("|", "\\|")
