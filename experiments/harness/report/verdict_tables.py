"""The tables of claims on the site's page and in README.md."""

from collections.abc import Sequence

from experiments.harness.claims import Section, format_number
from experiments.harness.page_section import README, RESULTS, PageSection
from experiments.harness.store import Record

PAGE = PageSection(RESULTS / "claims.md", "claims")
SUMMARY = PageSection(README, "claims")
VERDICTS = {"holds": "holds", "fails": "**fails**", "undecided": "*undecided*"}


def write(records: Sequence[Record]) -> None:
    """Write the tables of the page, and the counts of README.md."""
    PAGE.write(table(records))
    SUMMARY.write(summary(results_of(records)))


def check_markers() -> None:
    """Raise a ``ValueError`` where a section has no place. Call it before a long run."""
    for section in (PAGE, SUMMARY):
        section.surroundings()


def results_of(records: Sequence[Record]) -> list[Record]:
    """Return the results of all parts."""
    return [one for record in records for part in record["parts"] for one in part.get("findings", ())]


def summary(results: Sequence[Record]) -> str:
    """Return the counts of verdicts in a sentence.

    Example:
        >>> summary([{"verdict": "holds"}, {"verdict": "fails"}, {"verdict": "holds"}])
        '2 of 3 claims of the chapter hold, 1 fail, 0 are undecided.'
    """
    hold, fail, undecided = counts(results)
    return f"{hold} of {len(results)} claims of the chapter hold, {fail} fail, {undecided} are undecided."


def table(records: Sequence[Record]) -> str:
    """Return the counts of verdicts by section, all claims folded below, and the conditions of the measurement."""
    results = results_of(records)
    sections = {section.value: [one for one in results if one["section"] == section.value] for section in Section}
    lines = ["| section of the chapter | hold | fail | undecided |", "|---|---:|---:|---:|"]
    lines += [f"| {title} | {' | '.join(map(str, counts(of)))} |" for title, of in sections.items() if of]
    lines += [f"| **all {len(results)} claims** | {' | '.join(f'**{count}**' for count in counts(results))} |"]
    details = ["| claim | allowed | measured | verdict |", "|---|---|---|---|"]
    for title, of in sections.items():
        details += [f"| **{title}** | | | |", *map(row, of)] if of else []
    measured_on = next(part["environment"] for record in records for part in record["parts"] if "environment" in part)
    run = "--full --readme" if records[0]["settings"]["full"] else "--readme"
    source = (
        f"*`python -m experiments {run}`: estimates with their 95% intervals over seeds. Claims and thresholds stood "
        f"before this run; some were sharpened after smaller trial runs. jax {measured_on['jax']}, "
        f"python {measured_on['python']}, {measured_on['device']}, {measured_on['cores']} cores.*"
    )
    folded = ["<details>", "<summary>Every claim with its verdict</summary>", "", *details, "", "</details>"]
    return "\n".join([*lines, "", *folded, "", source])


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
