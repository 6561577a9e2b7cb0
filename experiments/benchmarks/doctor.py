"""What the doctor finds: sick training runs named right, and healthy ones left in peace.

``python -m experiments.benchmarks.doctor`` trains every recipe of ``sick_runs`` and ``unseen_runs``, monitored, and
asks ``diagnose_health`` about each. A healthy run counts only where it reached its data set's quality, a sick one only
where its twin did and it ended clearly worse. The rules were written by ``sick_runs`` alone, the development half.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax
import optax
import tyro
from jax import lax
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import funcnn as fnn
from experiments.benchmarks.monitored_runs import DATA, Recipe, Run, train
from experiments.benchmarks.sick_runs import HEALTHY, SICK
from experiments.benchmarks.unseen_runs import UNSEEN_HEALTHY, UNSEEN_SICK
from experiments.harness.console import console, table
from funcnn.health.findings import Finding, diagnose_health
from funcnn.health.measures import monitored_value_and_grad, update_ratios

DEVELOPMENT = {patient.name for patient in (*HEALTHY, *SICK)}
CLEARLY = 0.1
"""A sick run has to end with an accuracy, or an R², this much below its twin's."""


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Sick and healthy training runs, shown to the doctor."""

    quick: bool = False
    """Only every sixth run."""
    out: Path = Path("report")
    """The folder for doctor.json."""


class Visit(NamedTuple):
    """A patient, what became of it, and what the doctor said."""

    recipe: Recipe
    quality: float
    is_development: bool
    findings: tuple[Finding, ...]

    @property
    def is_detected(self) -> bool:
        return any(finding.kind in self.recipe.kinds for finding in self.findings)

    @property
    def is_located(self) -> bool:
        """Whether a finding of the right kind names the broken layer."""
        return any(
            finding.kind in self.recipe.kinds and finding.layer == self.recipe.layer for finding in self.findings
        )


def examine(settings: DoctorSettings) -> tuple[list[Visit], list[str]]:
    """The runs that count, examined; and, by name, those that don't and why."""
    every = 6 if settings.quick else 1
    sick, healthy = (*SICK[::every], *UNSEEN_SICK[::every]), (*HEALTHY[::every], *UNSEEN_HEALTHY[::every])
    names = {patient.name for patient in healthy}
    others = list({patient.twin.name: patient.twin for patient in sick if patient.twin.name not in names}.values())
    visits, left_out, qualities = [], [], {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(healthy) + len(others) + len(sick))
        for recipe in (*healthy, *others, *sick):
            progress.update(task, description=recipe.name)
            run = train(recipe)
            progress.advance(task)
            qualities[recipe.name] = run.quality
            reason = _does_not_count(recipe, run, qualities)
            if reason:
                left_out.append(f"{recipe.name}: {reason}")
            elif recipe not in others:
                findings = diagnose_health(run.record, run.facts)
                visits.append(Visit(recipe, run.quality, recipe.name in DEVELOPMENT, findings))
    return visits, left_out


def _does_not_count(recipe: Recipe, run: Run, qualities: dict[str, float]) -> str:
    """Why a run isn't what its name says; nothing where it is."""
    needed = DATA[recipe.data]().quality
    if not recipe.kinds:
        return "" if run.quality >= needed else f"not healthy, {run.quality:.2f} of {needed}"
    twin = qualities[recipe.twin.name]
    if twin < needed:
        return f"its twin isn't healthy, {twin:.2f} of {needed}"
    return "" if run.quality <= twin - CLEARLY else f"not sick, {run.quality:.2f} beside {twin:.2f}"


def share(visits: list[Visit], holds: Callable[[Visit], bool]) -> str:
    """How many of them, and what share."""
    held = sum(map(holds, visits))
    return f"{held} of {len(visits)} ({100 * held / len(visits):.1f}%)" if visits else "–"


def row(visits: list[Visit]) -> tuple[str, ...]:
    """Detected, right layer, false alarms, and findings for a sick run."""
    sick = [visit for visit in visits if visit.recipe.kinds]
    located = [visit for visit in sick if visit.recipe.layer]
    return (
        share(sick, lambda visit: visit.is_detected),
        share(located, lambda visit: visit.is_located),
        share([visit for visit in visits if not visit.recipe.kinds], lambda visit: bool(visit.findings)),
        f"{statistics.mean(len(visit.findings) for visit in sick):.1f}" if sick else "–",
    )


def show(visits: list[Visit], left_out: list[str]) -> None:
    """The table of both halves and of all, that of the kinds, and every run that the doctor was wrong about."""
    halves = table("runs", "detected", "right layer", "false alarms", "findings each", title="What the doctor finds")
    for name, chosen in (
        ("development", [visit for visit in visits if visit.is_development]),
        ("held out", [visit for visit in visits if not visit.is_development]),
        ("all", visits),
    ):
        halves.add_row(name, *row(chosen))
    console.print(halves)
    kinds = table("kind", "detected")
    for kind in dict.fromkeys(visit.recipe.kinds[0] for visit in visits if visit.recipe.kinds):
        of_kind = [visit for visit in visits if visit.recipe.kinds[:1] == (kind,)]
        kinds.add_row(kind, share(of_kind, lambda visit: visit.is_detected))
    console.print(kinds)
    for visit in visits:
        said = ", ".join(f"{finding.kind} ({finding.layer})" for finding in visit.findings) or "nothing"
        half = "development" if visit.is_development else "held out"
        if visit.recipe.kinds and not visit.is_detected:
            console.print(f"missed, {half}: {visit.recipe.name}: {said}", highlight=False, markup=False)
        elif visit.recipe.layer and not visit.is_located:
            console.print(f"another layer, {half}: {visit.recipe.name}: {said}", highlight=False, markup=False)
        elif visit.findings and not visit.recipe.kinds:
            console.print(f"false alarm, {half}: {visit.recipe.name}: {said}", highlight=False, markup=False)
    for line in left_out:
        console.print(f"doesn't count: {line}", highlight=False, markup=False)


def cost(every: int = 15, steps: int = 600, rounds: int = 40) -> float:
    """Time with a step in ``every`` monitored over time without: the median ratio of interleaved rounds.

    A 64-128-64-10 network with batches of 64 and Adam, scanned in blocks whose first step is monitored.
    """
    model, loss, optimizer = fnn.mlp((64, 128, 64, 10)), fnn.softmax_cross_entropy, fnn.adam(1e-3)
    plain, monitored = fnn.manual_value_and_grad(model, loss), monitored_value_and_grad(model, loss)
    keys = jax.random.split(jax.random.key(0), 3)
    params, state = model.init(keys[0])
    batch = (jax.random.normal(keys[1], (64, 64)), jax.random.randint(keys[2], (64,), 0, 10))

    def step(carry, value_and_grad):
        params, opt_state = carry
        (value, _), gradients, *measures = value_and_grad(params, state, batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        watched = (measures, update_ratios(model, updates, params)) if measures else ()
        return (optax.apply_updates(params, updates), opt_state), (value, watched)

    def block(carry, _):
        carry, first = step(carry, monitored)
        carry, others = lax.scan(lambda carry, _: step(carry, plain), carry, length=every - 1)
        return carry, (first, others)

    start = (params, optimizer.init(params))
    with_figures = jax.jit(lambda: lax.scan(block, start, length=steps // every))
    without = jax.jit(lambda: lax.scan(lambda carry, _: step(carry, plain), start, length=steps))
    ratios = []
    for _ in range(rounds + 1):
        seconds = []
        for function in (with_figures, without):
            begun = time.perf_counter()
            jax.block_until_ready(function())
            seconds.append(time.perf_counter() - begun)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])  # the first round compiles


def run(settings: DoctorSettings) -> list[Visit]:
    """Examine, print, and write doctor.json."""
    console.rule("[bold]The doctor")
    start = time.perf_counter()
    # Hundreds of small programs, each run a few times: what XLA would spend on making them fast is lost.
    jax.config.update("jax_disable_most_optimizations", True)
    visits, left_out = examine(settings)
    jax.config.update("jax_disable_most_optimizations", False)
    show(visits, left_out)
    ratio = cost()
    console.print(f"a step in 15 monitored takes {ratio:.3f} times as long as none", highlight=False)
    console.print(f"{time.perf_counter() - start:.0f} s, jax {jax.__version__}, {jax.devices()[0].device_kind}")
    settings.out.mkdir(parents=True, exist_ok=True)
    told = [
        {
            "name": visit.recipe.name, "expected": visit.recipe.kinds, "layer": visit.recipe.layer,
            "quality": visit.quality, "development": visit.is_development,
            "findings": [finding._asdict() for finding in visit.findings],
        }
        for visit in visits
    ]  # fmt: skip
    path = settings.out / "doctor.json"
    path.write_text(json.dumps({"cost": ratio, "visits": told, "left_out": left_out}, indent=1), encoding="utf-8")
    console.print(f"every finding: {path}", highlight=False)
    return visits


if __name__ == "__main__":
    run(tyro.cli(DoctorSettings, description=__doc__))
