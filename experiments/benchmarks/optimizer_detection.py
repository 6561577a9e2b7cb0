"""Detection of planted mistakes in hand-written optimizers, and false alarms on right ones.

``python -m experiments.benchmarks.detection --optimizers`` applies ``check_optimizer`` to every case of the catalogue,
and compares it with a common test: ten steps of random gradients in float32, then ``np.allclose``.
"""

import json
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from experiments.benchmarks.catalogue.optimizers import PARAMS, RIGHT_OPTIMIZERS, WRONG_OPTIMIZERS, OptimizerCase
from experiments.benchmarks.catalogue.unforeseen import UNFORESEEN
from experiments.harness.console import console, table
from funcnn.optimizercheck import check_optimizer

CASES = (*WRONG_OPTIMIZERS, *UNFORESEEN, *RIGHT_OPTIMIZERS)
COLUMNS = ("comparison", "mistakes caught", "named", "misnamed", "false alarms", "seconds a case")
STEPS, RATE = 10, 1e-2

BFLOAT16_CASES = frozenset({"adam_with_injected_settings", "velocity_updates_in_float32"})
"""The cases whose mistake exists for bfloat16 parameters alone. They are checked on such parameters."""


def case_params(case: OptimizerCase) -> PyTree:
    """Return the parameters on which a case is checked."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS) if case.name in BFLOAT16_CASES else PARAMS


class Opinion(NamedTuple):
    """What a comparison said of a case."""

    case: OptimizerCase
    flagged: bool
    cause: str | None
    seconds: float


def by_funcnn(case: OptimizerCase) -> tuple[bool, str | None]:
    report = check_optimizer(case.candidate, case.reference, PARAMS)
    return not report.ok, report.cause


def by_allclose(case: OptimizerCase) -> tuple[bool, str | None]:
    """Ten steps of random gradients from the parameters, and NumPy's default tolerances."""
    built = [one if hasattr(one, "update") else one(RATE) for one in (case.candidate, case.reference)]
    random, states = np.random.default_rng(0), [one.init(PARAMS) for one in built]
    params = [PARAMS, PARAMS]
    for _ in range(STEPS):
        grads = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), PARAMS)
        for place, one in enumerate(built):
            updates, states[place] = one.update(grads, states[place], params[place])
            params[place] = jax.tree.map(jnp.add, params[place], updates)
    leaves = zip(*map(jax.tree.leaves, params), strict=True)
    return not all(np.allclose(ours, theirs) for ours, theirs in leaves), None


COMPARISONS = {"`funcnn.check_optimizer`": by_funcnn, "ten random steps, `np.allclose`": by_allclose}


def ask(comparison, case: OptimizerCase) -> Opinion:
    start = time.perf_counter()
    flagged, cause = comparison(case)
    return Opinion(case, flagged, cause, time.perf_counter() - start)


def row(name: str, opinions: list[Opinion]) -> tuple[str, ...]:
    """A line of the table. ``unknown`` names nothing, and misnames nothing."""
    wrong = [opinion for opinion in opinions if opinion.case.causes]
    rights = [opinion for opinion in opinions if not opinion.case.causes]
    caught = [opinion for opinion in wrong if opinion.flagged]
    named = sum(opinion.cause in opinion.case.causes - {"unknown"} for opinion in caught)
    misnamed = sum(opinion.cause not in opinion.case.causes | {"unknown"} for opinion in caught)
    judged = name == next(iter(COMPARISONS))
    return (
        name,
        f"{len(caught)} of {len(wrong)}",
        f"{named} of {len(caught)}" if judged else "–",
        str(misnamed) if judged else "–",
        f"{sum(opinion.flagged for opinion in rights)} of {len(rights)}",
        f"{statistics.median(opinion.seconds for opinion in opinions):.2g}",
    )


def show_failures(name: str, opinions: list[Opinion]) -> None:
    """By name, what was missed, taken for wrong, or not named."""
    missed = [opinion.case.name for opinion in opinions if opinion.case.causes and not opinion.flagged]
    alarmed = [opinion.case.name for opinion in opinions if not opinion.case.causes and opinion.flagged]
    unnamed = [
        f"{opinion.case.name} ({opinion.cause})"
        for opinion in opinions
        if opinion.cause and opinion.flagged and opinion.cause not in opinion.case.causes - {"unknown"}
    ]
    for words, failed in {"missed": missed, "false alarms": alarmed, "not named": unnamed}.items():
        if failed:
            console.print(f"{name}, {words}: {escape(', '.join(failed))}", highlight=False)


def run(only: tuple[str, ...], out: Path) -> int:
    """Ask, print and write."""
    cases = [case for case in CASES if not only or {case.name, case.theme} & set(only)]
    opinions: dict[str, list[Opinion]] = {}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console.rule("[bold]What comparisons of optimizers find")
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(COMPARISONS) * len(cases))
        for name, comparison in COMPARISONS.items():
            opinions[name] = []
            for case in cases:
                progress.update(task, description=case.name)
                opinions[name].append(ask(comparison, case))
                progress.advance(task)
    shown = table(*COLUMNS)
    for name, given in opinions.items():
        shown.add_row(*row(name, given))
    console.print(shown)
    for name, given in opinions.items():
        show_failures(name, given)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "optimizer_detection.json"
    record = [
        {"comparison": name, "case": case.name, "theme": case.theme, "causes": sorted(case.causes)}
        | {"flagged": flagged, "cause": cause, "seconds": seconds}
        for name, given in opinions.items()
        for case, flagged, cause, seconds in given
    ]
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    return 0
