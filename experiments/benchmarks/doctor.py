"""The monitor's detection rate: faulty training runs whose fault is named, and false alarms on healthy runs.

``python -m experiments.benchmarks.doctor`` trains every case of ``faulty_runs`` and ``held_out_runs`` with monitoring
and calls ``diagnose_health`` on each. A healthy run counts only if it reaches its data set's quality, and a faulty one
only if its healthy twin does and it ends clearly worse. The rules were written with ``faulty_runs`` alone, the
development half. The held-out half was written after every threshold was fixed, by authors who knew the rules: it is
not blind.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
import tyro
from jax import lax

import funcnn as fnn
from experiments.benchmarks.faulty_runs import FAULTY, HEALTHY
from experiments.benchmarks.held_out_runs import HELD_OUT_FAULTY, HELD_OUT_HEALTHY
from experiments.benchmarks.monitored_runs import DATA, MonitoredRun, TrainingCase, train
from experiments.harness.console import console, progress_bar, table
from funcnn.health.findings import diagnose_health
from funcnn.health.kinds import Finding
from funcnn.health.measures import monitored_value_and_grad, update_ratios

DEVELOPMENT = {case.name for case in (*HEALTHY, *FAULTY)}
CLEARLY = 0.1
"""A faulty run has to end with an accuracy, or an R², this much below its twin's."""
SYMPTOM = "loss doesn't fall"
COLUMNS = ("runs", "any finding", "fault named", "named wrongly", "right layer", "false alarms", "findings each")


@dataclass(frozen=True, kw_only=True)
class DoctorSettings:
    """Detection rate and false alarms of the monitor on faulty and healthy training runs."""

    quick: bool = False
    """Only every sixth run."""
    out: Path = Path("report")
    """The folder for doctor.json."""


class Diagnosis(NamedTuple):
    """A case, the quality of its run, and the findings of the monitor."""

    case: TrainingCase
    quality: float
    is_development: bool
    findings: tuple[Finding, ...]

    @property
    def is_named(self) -> bool:
        """Whether a finding has a right kind."""
        return any(finding.kind in self.case.kinds for finding in self.findings)

    @property
    def is_named_wrongly(self) -> bool:
        """Whether the findings have other kinds only. ``loss doesn't fall`` is a symptom and no wrong name."""
        return not self.is_named and any(finding.kind != SYMPTOM for finding in self.findings)

    @property
    def is_located(self) -> bool:
        """Whether a finding of the right kind names the broken layer."""
        return any(finding.kind in self.case.kinds and finding.layer == self.case.layer for finding in self.findings)


def diagnose_all(settings: DoctorSettings) -> tuple[list[Diagnosis], list[str]]:
    """Return the diagnoses of the runs that count, and the names of the others with the reason."""
    every = 6 if settings.quick else 1
    faulty, healthy = (*FAULTY[::every], *HELD_OUT_FAULTY[::every]), (*HEALTHY[::every], *HELD_OUT_HEALTHY[::every])
    names = {case.name for case in healthy}
    others = list({case.twin.name: case.twin for case in faulty if case.twin.name not in names}.values())
    diagnoses, left_out, qualities = [], [], {}
    with progress_bar("runs") as progress:
        task = progress.add_task("", total=len(healthy) + len(others) + len(faulty))
        for case in (*healthy, *others, *faulty):
            progress.update(task, description=case.name)
            run = train(case)
            progress.advance(task)
            qualities[case.name] = run.quality
            reason = _does_not_count(case, run, qualities)
            if reason:
                left_out.append(f"{case.name}: {reason}")
            elif case not in others:
                findings = diagnose_health(run.record, run.facts)
                diagnoses.append(Diagnosis(case, run.quality, case.name in DEVELOPMENT, findings))
    return diagnoses, left_out


def _does_not_count(case: TrainingCase, run: MonitoredRun, qualities: dict[str, float]) -> str:
    """Return why a run does not count; empty if it does."""
    needed = DATA[case.data]().quality
    if not case.kinds:
        return "" if run.quality >= needed else f"not healthy, {run.quality:.2f} of {needed}"
    twin = qualities[case.twin.name]
    if twin < needed:
        return f"its twin isn't healthy, {twin:.2f} of {needed}"
    return "" if run.quality <= twin - CLEARLY else f"not faulty, {run.quality:.2f} beside {twin:.2f}"


def share(diagnoses: list[Diagnosis], holds: Callable[[Diagnosis], bool]) -> str:
    """Format the number and the share of the diagnoses for which ``holds`` is true."""
    held = sum(map(holds, diagnoses))
    return f"{held} of {len(diagnoses)} ({100 * held / len(diagnoses):.1f}%)" if diagnoses else "–"


def row(diagnoses: list[Diagnosis]) -> tuple[str, ...]:
    """Return the cells of a row after its name. A faulty run without a finding of the right kind is not named."""
    faulty = [diagnosis for diagnosis in diagnoses if diagnosis.case.kinds]
    located = [diagnosis for diagnosis in faulty if diagnosis.case.layer]
    healthy = [diagnosis for diagnosis in diagnoses if not diagnosis.case.kinds]
    return (
        share(faulty, lambda diagnosis: bool(diagnosis.findings)),
        share(faulty, lambda diagnosis: diagnosis.is_named),
        share(faulty, lambda diagnosis: diagnosis.is_named_wrongly),
        share(located, lambda diagnosis: diagnosis.is_located),
        share(healthy, lambda diagnosis: bool(diagnosis.findings)),
        f"{statistics.mean(len(diagnosis.findings) for diagnosis in faulty):.1f}" if faulty else "–",
    )


def show(diagnoses: list[Diagnosis], left_out: list[str]) -> None:
    """Print the tables of both halves and of the kinds, and every wrong diagnosis."""
    halves = table(*COLUMNS, title="Detection by the monitor")
    for name, of_half in (
        ("development", [diagnosis for diagnosis in diagnoses if diagnosis.is_development]),
        ("held out", [diagnosis for diagnosis in diagnoses if not diagnosis.is_development]),
        ("all", diagnoses),
    ):
        halves.add_row(name, *row(of_half))
    console.print(halves)
    kinds = table("kind", "fault named")
    for kind in dict.fromkeys(diagnosis.case.kinds[0] for diagnosis in diagnoses if diagnosis.case.kinds):
        of_kind = [diagnosis for diagnosis in diagnoses if diagnosis.case.kinds[:1] == (kind,)]
        kinds.add_row(kind, share(of_kind, lambda diagnosis: diagnosis.is_named))
    console.print(kinds)
    for diagnosis in diagnoses:
        found = ", ".join(f"{finding.kind} ({finding.layer})" for finding in diagnosis.findings) or "nothing"
        half = "development" if diagnosis.is_development else "held out"
        if diagnosis.case.kinds and not diagnosis.is_named:
            words = "named wrongly" if diagnosis.is_named_wrongly else "not named"
            console.print(f"{words}, {half}: {diagnosis.case.name}: {found}", highlight=False, markup=False)
        elif diagnosis.case.layer and not diagnosis.is_located:
            console.print(f"another layer, {half}: {diagnosis.case.name}: {found}", highlight=False, markup=False)
        elif diagnosis.findings and not diagnosis.case.kinds:
            console.print(f"false alarm, {half}: {diagnosis.case.name}: {found}", highlight=False, markup=False)
    for line in left_out:
        console.print(f"doesn't count: {line}", highlight=False, markup=False)


def cost(every: int = 15, steps: int = 600, rounds: int = 40) -> float:
    """Return the time with one monitored step in ``every`` over the time without, the median of interleaved rounds.

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
            started = time.perf_counter()
            jax.block_until_ready(function())
            seconds.append(time.perf_counter() - started)
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios[1:])  # the first round compiles


def record(diagnosis: Diagnosis) -> dict[str, Any]:
    """Return a diagnosis as JSON."""
    return {
        "name": diagnosis.case.name, "expected": diagnosis.case.kinds, "layer": diagnosis.case.layer,
        "quality": diagnosis.quality, "development": diagnosis.is_development,
        "named": diagnosis.is_named, "named_wrongly": diagnosis.is_named_wrongly, "located": diagnosis.is_located,
        "findings": [finding._asdict() for finding in diagnosis.findings],
    }  # fmt: skip


def run(settings: DoctorSettings) -> list[Diagnosis]:
    """Diagnose all runs, print the tables, and write doctor.json."""
    console.rule("[bold]The monitor on faulty and healthy runs")
    start = time.perf_counter()
    # Hundreds of small programs run a few times each: optimizing them would take longer than they run.
    jax.config.update("jax_disable_most_optimizations", True)
    diagnoses, left_out = diagnose_all(settings)
    jax.config.update("jax_disable_most_optimizations", False)
    show(diagnoses, left_out)
    ratio = cost()
    console.print(f"a step in 15 monitored takes {ratio:.3f} times as long as none", highlight=False)
    console.print(f"{time.perf_counter() - start:.0f} s, jax {jax.__version__}, {jax.devices()[0].device_kind}")
    settings.out.mkdir(parents=True, exist_ok=True)
    records = list(map(record, diagnoses))
    path = settings.out / "doctor.json"
    path.write_text(json.dumps({"cost": ratio, "diagnoses": records, "left_out": left_out}, indent=1), encoding="utf-8")
    console.print(f"every finding: {path}", highlight=False)
    return diagnoses


if __name__ == "__main__":
    run(tyro.cli(DoctorSettings, description=__doc__))
