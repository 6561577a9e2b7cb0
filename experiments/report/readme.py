"""The README's table of claims, written from what was measured."""

from collections.abc import Sequence
from pathlib import Path

from experiments.claims import Section, number
from experiments.store import Record, write_whole

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- claims -->", "<!-- /claims -->"
WORDS = {"holds": "holds", "fails": "**fails**", "undecided": "*undecided*"}


def write(records: Sequence[Record]) -> None:
    """Put the table between its marks."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"README.md: expected the marks {BEGIN} and {END}, got none to write between.")
    write_whole(README, f"{before}{BEGIN}\n{table(records)}\n{END}{after}")


def table(records: Sequence[Record]) -> str:
    """A row for each claim, by the chapter's sections, and a line that says how it was measured."""
    findings = [one for record in records for part in record["parts"] for one in part.get("findings", ())]
    lines = ["| claim | allowed | measured | verdict |", "|---|---|---|---|"]
    for section in Section:
        rows = [row(one) for one in findings if one["section"] == section.value]
        lines += [f"| **{section.value}** | | | |", *rows] if rows else []
    first = next(part["environment"] for record in records for part in record["parts"] if "environment" in part)
    run = "--full --readme" if records[0]["settings"]["full"] else "--readme"
    return "\n".join([
        *lines, "",
        f"*`python -m experiments {run}`: estimates with their 95% intervals over seeds. jax {first['jax']}, "
        f"python {first['python']}, {first['device']}, {first['cores']} cores.*",
    ])  # fmt: skip


def row(finding: Record) -> str:
    interval = "" if finding["statistic"] == "exact" else f" ({number(finding['low'])} to {number(finding['high'])})"
    return (
        f"| {finding['sentence']} | {finding['threshold']} | {number(finding['estimate'])}{interval} | "
        f"{WORDS[finding['verdict']]} |"
    )
