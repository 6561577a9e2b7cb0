"""The tables of reliability on the site's page and in README.md, from the records of ``survival`` and ``doctor``.

``python -m experiments.benchmarks.reliability`` writes them from the records in ``results/``.
"""

import json
from collections.abc import Sequence
from typing import Any

from experiments.harness.page_section import README, RESULTS, ROOT, PageSection

Record = dict[str, Any]
FILES = ROOT / "experiments" / "benchmarks" / "results"
SUMMARY = (PageSection(README, "reliability"), PageSection(RESULTS / "reliability.md", "reliability"))
KINDS = PageSection(RESULTS / "reliability.md", "doctor")
OTHERS = ("threads", "second process, and a kill that leaves its lock", "full disk, read-only folder")
SURVIVAL, DOCTOR = "`python -m experiments.benchmarks.survival`", "`python -m experiments.benchmarks.doctor`"


def record_of(study: str) -> Record:
    """Return the record of a study in ``results/``."""
    [file] = FILES.glob(f"{study}_*.json")
    return json.loads(file.read_text(encoding="utf-8"))


def summary(survival: Record, doctor: Record) -> str:
    """Return the table of README.md and of the page: a row for each test."""
    rows = [*survival_rows(survival), doctor_row(doctor)]
    return "\n".join(["| test | result | command |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)])


def survival_rows(survival: Record) -> list[tuple[str, str, str]]:
    """Return the rows of killed and interrupted processes, damaged files and shared folders."""
    kills, broken, interrupted = survival["kills"], survival["broken bytes"], survival["Ctrl-C"]
    others = [survival[name] for name in OTHERS]
    held, runs = sum(each["held"] for each in others), sum(each["runs"] for each in others)
    return [
        (
            f"a process killed by SIGKILL at random moments, {kills['kills']} times, and restarted until its run was "
            "complete",
            f"{kills['equal']} of {kills['runs']} runs were equal, bit by bit, to one without interruption",
            SURVIVAL,
        ),
        (
            f"{sum(broken.values())} checkpoints with one flipped or missing byte",
            f"{broken['refused']} refused, {broken['harmless']} without effect, "
            f"{broken['silently_wrong']} with a wrong result",
            "the same",
        ),
        (
            "four runs in threads, a second process on a folder, a kill that leaves its lock, full and read-only disks",
            f"{held} of {runs} held",
            "the same",
        ),
        (
            f"Ctrl-C at {interrupted['runs']} random moments of plain and checkpointed runs",
            f"{interrupted['held']} left within two seconds with status 130, the slowest in "
            f"{interrupted['seconds until the slowest run had left']:.1f} s; the error of "
            f"{interrupted['results carried']} has the result so far, the others stopped before their first step",
            "the same",
        ),
    ]


def doctor_row(doctor: Record) -> tuple[str, str, str]:
    """Return the row of faulty and healthy runs."""
    faulty = [one for one in doctor["diagnoses"] if one["expected"]]
    healthy = [one for one in doctor["diagnoses"] if not one["expected"]]
    located = [one for one in faulty if one["layer"]]
    later = sum(not one["development"] for one in faulty)
    alarms = sum(bool(one["findings"]) for one in healthy)
    return (
        f"{len(faulty)} faulty runs of {len(kinds_of(faulty))} kinds, {later} written after the rules, none blind; "
        f"{len(healthy)} healthy runs",
        f"fault named in {sum(one['named'] for one in faulty)}, named wrongly in "
        f"{sum(one['named_wrongly'] for one in faulty)}; if one layer was broken, that layer in "
        f"{sum(one['located'] for one in located)} of {len(located)}; "
        f"{alarms} false alarm{'' if alarms == 1 else 's'}",
        DOCTOR,
    )


def by_kind(doctor: Record) -> str:
    """Return the table of faults by kind: how many runs have one, and for how many it is named."""
    faulty = [one for one in doctor["diagnoses"] if one["expected"]]
    lines = ["| fault | runs | named |", "|---|---:|---:|"]
    for kind in kinds_of(faulty):
        of_kind = [one for one in faulty if one["expected"][0] == kind]
        lines.append(f"| {kind} | {len(of_kind)} | {sum(one['named'] for one in of_kind)} |")
    return "\n".join(lines)


def kinds_of(faulty: Sequence[Record]) -> list[str]:
    """Return the kinds of fault, in the order of the runs."""
    return list(dict.fromkeys(one["expected"][0] for one in faulty))


def write() -> None:
    """Write the tables."""
    survival, doctor = record_of("survival"), record_of("doctor")
    for section in SUMMARY:
        section.write(summary(survival, doctor))
    KINDS.write(by_kind(doctor))


if __name__ == "__main__":
    write()
