"""The README's table of claims."""

from collections.abc import Sequence

from experiments.harness.claims import Section, format_number
from experiments.harness.readme_section import readme_section
from experiments.harness.store import Record

SECTION = readme_section("claims")
VERDICTS = {"holds": "holds", "fails": "**fails**", "undecided": "*undecided*"}


def write(records: Sequence[Record]) -> None:
    """Write the table into the README."""
    SECTION.write(table(records))


def table(records: Sequence[Record]) -> str:
    """Return the counts of verdicts by section, all claims folded below, and the conditions of the measurement."""
    parts = [part for record in records for part in record["parts"]]
    results = [one for part in parts for one in part.get("findings", ())]
    sections = {section.value: [one for one in results if one["section"] == section.value] for section in Section}
    summary = ["| section of the chapter | hold | fail | undecided |", "|---|---:|---:|---:|"]
    summary += [f"| {title} | {' | '.join(map(str, counts(of)))} |" for title, of in sections.items() if of]
    summary += [f"| **all {len(results)} claims** | {' | '.join(f'**{count}**' for count in counts(results))} |"]
    details = ["| claim | allowed | measured | verdict |", "|---|---|---|---|"]
    for title, of in sections.items():
        details += [f"| **{title}** | | | |", *map(row, of)] if of else []
    measured_on = next(part["environment"] for part in parts if "environment" in part)
    run = "--full --readme" if records[0]["settings"]["full"] else "--readme"
    source = (
        f"*`python -m experiments {run}`: estimates with their 95% intervals over seeds. Claims and thresholds stood "
        f"before this run; some were sharpened after smaller trial runs. jax {measured_on['jax']}, "
        f"python {measured_on['python']}, {measured_on['device']}, {measured_on['cores']} cores.*"
    )
    folded = ["<details>", "<summary>Every claim with its verdict</summary>", "", *details, "", "</details>"]
    return "\n".join([*summary, "", *folded, "", source])


def counts(results: Sequence[Record]) -> list[int]:
    """Return the number of results with each verdict."""
    return [sum(one["verdict"] == word for one in results) for word in VERDICTS]


def row(result: Record) -> str:
    bounds = f" ({format_number(result['low'])} to {format_number(result['high'])})"
    interval = "" if result["statistic"] == "exact" else bounds
    return (
        f"| {escape(result['sentence'])} | {result['threshold']} | {format_number(result['estimate'])}{interval} | "
        f"{VERDICTS[result['verdict']]} |"
    )


def escape(sentence: str) -> str:
    """Escape the bars of a sentence, which would end a cell of the table."""
    return sentence.replace("|", "\\|")
