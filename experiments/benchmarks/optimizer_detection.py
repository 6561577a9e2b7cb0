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

from experiments.benchmarks.catalogue.optimizers import PARAMS, RIGHT_OPTIMIZERS, WRONG_OPTIMIZERS, OptimizerCase
from experiments.benchmarks.catalogue.unforeseen import UNFORESEEN
from experiments.harness.console import console, progress_bar, table
from funcnn.optimizercheck import check_optimizer

CASES = (*WRONG_OPTIMIZERS, *UNFORESEEN, *RIGHT_OPTIMIZERS)
COLUMNS = ("comparison", "mistakes caught", "false alarms", "cause named", "named wrongly", "seconds a case")
STEPS, RATE = 10, 1e-2
ORIGIN = (
    "The mistakes of the themes 'unforeseen' and 'unforeseen, later' were written after the checker, and those of the "
    "first led to further mutations. No part of the catalogue is blind: the authors of all cases knew the checker."
)
"""How the cases were written."""

BFLOAT16_CASES = frozenset({"adam_with_injected_settings", "velocity_updates_in_float32"})
"""The cases whose mistake exists for bfloat16 parameters alone. They are checked on such parameters."""


def case_params(case: OptimizerCase) -> PyTree:
    """Return the parameters on which a case is checked."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), PARAMS) if case.name in BFLOAT16_CASES else PARAMS


class Verdict(NamedTuple):
    """The verdict of a comparison on a case.

    Fields:
        case: the case.
        is_flagged: whether the comparison calls the candidate wrong.
        cause: the cause that it names, if it names causes.
        seconds: the duration.
    """

    case: OptimizerCase
    is_flagged: bool
    cause: str | None
    seconds: float

    @property
    def is_named(self) -> bool:
        """Whether a right cause of a mistake is named. ``unknown`` is none."""
        return self.is_flagged and self.cause in self.case.causes - {"unknown"}

    @property
    def is_named_wrongly(self) -> bool:
        """Whether a cause of a mistake is named that is neither right nor ``unknown``."""
        return bool(self.case.causes) and self.is_flagged and self.cause not in self.case.causes | {"unknown", None}


def check_by_funcnn(case: OptimizerCase) -> tuple[bool, str | None]:
    """Return whether ``check_optimizer`` calls the candidate wrong, and the cause."""
    report = check_optimizer(case.candidate, case.reference, case_params(case))
    return not report.ok, report.cause


def check_by_allclose(case: OptimizerCase) -> tuple[bool, str | None]:
    """Return whether ten steps of random gradients lead to other parameters, by NumPy's default tolerances."""
    built = [one if hasattr(one, "update") else one(RATE) for one in (case.candidate, case.reference)]
    initial = case_params(case)
    random, states = np.random.default_rng(0), [one.init(initial) for one in built]
    params = [initial, initial]
    for _ in range(STEPS):
        grads = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), initial)
        for place, one in enumerate(built):
            updates, states[place] = one.update(grads, states[place], params[place])
            params[place] = jax.tree.map(jnp.add, params[place], updates)
    leaves = [[np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)] for tree in params]
    return not all(np.allclose(*pair) for pair in zip(*leaves, strict=True)), None


COMPARISONS = {
    "`funcnn.check_optimizer`": check_by_funcnn,
    "ten random steps, `np.allclose`": check_by_allclose,
}
NAMING_COMPARISON = next(iter(COMPARISONS))
"""The only comparison that names causes."""


def evaluate_comparison(comparison, case: OptimizerCase) -> Verdict:
    """Return the verdict of a comparison on a case, with its duration."""
    start = time.perf_counter()
    is_flagged, cause = comparison(case)
    return Verdict(case, is_flagged, cause, time.perf_counter() - start)


def row(name: str, verdicts: list[Verdict]) -> tuple[str, ...]:
    """Return a row of the table. Causes are counted over all mistakes, whether they are caught or not."""
    wrong = [verdict for verdict in verdicts if verdict.case.causes]
    rights = [verdict for verdict in verdicts if not verdict.case.causes]
    names_causes = name == NAMING_COMPARISON
    return (
        name,
        f"{sum(verdict.is_flagged for verdict in wrong)} of {len(wrong)}",
        f"{sum(verdict.is_flagged for verdict in rights)} of {len(rights)}",
        f"{sum(verdict.is_named for verdict in wrong)} of {len(wrong)}" if names_causes else "–",
        f"{sum(verdict.is_named_wrongly for verdict in wrong)} of {len(wrong)}" if names_causes else "–",
        f"{statistics.median(verdict.seconds for verdict in verdicts):.2g}",
    )


def show_failures(name: str, verdicts: list[Verdict]) -> None:
    """Print the names of missed mistakes, false alarms, and mistakes whose cause is not named or named wrongly."""
    wrong = [verdict for verdict in verdicts if verdict.case.causes]
    caught = [verdict for verdict in wrong if verdict.is_flagged and name == NAMING_COMPARISON]
    unnamed = [verdict for verdict in caught if not verdict.is_named and not verdict.is_named_wrongly]
    failures = {
        "missed": [verdict.case.name for verdict in wrong if not verdict.is_flagged],
        "false alarms": [verdict.case.name for verdict in verdicts if not verdict.case.causes and verdict.is_flagged],
        "not named": [verdict.case.name for verdict in unnamed],
        "named wrongly": [f"{verdict.case.name} ({verdict.cause})" for verdict in caught if verdict.is_named_wrongly],
    }
    for words, names in failures.items():
        if names:
            console.print(f"{name}, {words}: {escape(', '.join(names))}", highlight=False)


def run(only: tuple[str, ...], out: Path) -> int:
    """Evaluate both comparisons on all cases, print the table and write the record."""
    cases = [case for case in CASES if not only or {case.name, case.theme} & set(only)]
    verdicts: dict[str, list[Verdict]] = {}
    console.rule("[bold]Detection by comparisons of optimizers")
    with progress_bar("cases") as progress:
        task = progress.add_task("", total=len(COMPARISONS) * len(cases))
        for name, comparison in COMPARISONS.items():
            verdicts[name] = []
            for case in cases:
                progress.update(task, description=case.name)
                verdicts[name].append(evaluate_comparison(comparison, case))
                progress.advance(task)
    shown = table(*COLUMNS)
    for name, of_comparison in verdicts.items():
        shown.add_row(*row(name, of_comparison))
    console.print(shown)
    console.print(ORIGIN, highlight=False)
    for name, of_comparison in verdicts.items():
        show_failures(name, of_comparison)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "optimizer_detection.json"
    record = [
        {"comparison": name, "case": verdict.case.name, "theme": verdict.case.theme}
        | {"causes": sorted(verdict.case.causes), "flagged": verdict.is_flagged, "cause": verdict.cause}
        | {"named": verdict.is_named, "named_wrongly": verdict.is_named_wrongly, "seconds": verdict.seconds}
        for name, of_comparison in verdicts.items()
        for verdict in of_comparison
    ]
    path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    console.print(f"written: {path}", highlight=False)
    return 0
