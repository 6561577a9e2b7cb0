"""The rules that ship inside JAX, Optax, Equinox, Flax, Lineax and Optimistix, put to the test.

``python -m experiments.benchmarks.kernels`` prints a row for each function: cases, digits, the digits that a sound
implementation has, and what was found with the smallest input. A function of arrays is swept by the fixture
``gradcheck``, a Pallas kernel in Pallas' interpreter. The derivative of a function of one number is compared with
mpmath's, of the same function in 60 digits, at ordinary points, kinks and edges of the domain.

A result is a ``fault`` if half of the digits are lost, measured at the scale of the derivative, or the derivative
isn't finite where the true one is. It is ``digits`` if half of the derivative's own digits are lost where it is small
beside that scale.
"""

import importlib.metadata
import json
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.markup import escape

from experiments.benchmarks.kernels.arrays import Kernel, array_rules, pallas_rules
from experiments.benchmarks.kernels.scalar import SCALAR_RULES, ScalarRule, derivatives
from experiments.harness.console import console, progress_bar, table
from funcnn._numerics.precision import enable_x64
from funcnn.gradcheck.check import WrongGradientError
from funcnn.pytest_plugin.fixture import Gradcheck

COMMAND = "python -m experiments.benchmarks.kernels"
LIBRARIES = ("equinox", "flax", "lineax", "mpmath", "optimistix")
"""The libraries whose versions the record keeps, beside JAX's and Optax's."""
LOST = 0.5
"""A derivative that loses more than this share of a dtype's digits is reported."""


Kind: TypeAlias = Literal["", "fault", "digits", "error"]


class KernelResult(NamedTuple):
    """The row of one function.

    Fields:
        library, name: what was checked.
        cases: points and dtypes, or shapes, dtypes and options.
        rejected: cases that the function or the reference doesn't take.
        digits: the worst in float32, at the scale of the derivative.
        sound: those of a sound implementation there.
        kind: what was found; empty if nothing was.
        text: the smallest input, what came and what was expected.
    """

    library: str
    name: str
    cases: int
    rejected: int
    digits: float
    sound: float
    kind: Kind
    text: str


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _digits(share: float, most: float) -> float:
    return most if share == 0 else max(0.0, min(most, -math.log10(share))) if math.isfinite(share) else 0.0


def compare_scalar(rule: ScalarRule) -> KernelResult:
    """Compare a derivative by ``jax.grad`` with mpmath's, in float32 and float64."""
    texts: list[tuple[str, str]] = []
    worst, cases = math.inf, 0
    for dtype in (jnp.float32, jnp.float64):
        info = jnp.finfo(dtype)
        with enable_x64(dtype == jnp.float64):
            points = np.asarray(rule.points, dtype)
            found = np.asarray(jax.jit(jax.vmap(jax.grad(rule.function)))(jnp.asarray(points)), np.float64)
        known = [(x, value, sides) for x, value in zip(points, found, strict=True)
                 if (sides := derivatives(rule, float(x))) is not None
                 and max(map(abs, sides)) < float(info.max)]  # fmt: skip
        cases += len(known)
        most = -math.log10(float(info.eps))
        scale = min(1.0, max(max(map(abs, sides)) for _, _, sides in known))
        rows = []
        for x, value, (low, high) in known:
            gap = max(low - value, value - high, 0.0) if math.isfinite(value) else math.inf
            size = max(abs(low), abs(high))
            relative = gap / size if size > float(info.tiny) else gap / float(info.tiny) if gap else 0.0
            rows.append((gap / max(size, scale), relative, abs(x), f"{value:.6g}, by mpmath {low:.6g}", x))
        share = max(row[0] for row in rows)
        worst = _digits(share, most) if dtype == jnp.float32 else worst
        limit = float(info.eps) ** LOST
        for kind, place in (("fault", 0), ("digits", 1)):
            wrong = [row for row in rows if row[place] > limit]
            if wrong:
                *_, values, x = min(wrong, key=lambda row: row[2]) if kind == "fault" else max(wrong)
                texts.append((kind, f"{dtype.__name__} at x = {x:.6g}: {values} ({len(wrong)} of {len(rows)} points)"))
                break
    kinds = [kind for kind, _ in texts]
    kind: Kind = "fault" if "fault" in kinds else "digits" if kinds else ""
    sound = -math.log10(float(jnp.finfo(jnp.float32).eps))
    return KernelResult(rule.library, rule.name, cases, 0, worst, sound, kind, "; ".join(text for _, text in texts))


def sweep_kernel(kernel: Kernel) -> KernelResult:
    """Check a function over its cases by the fixture of the pytest plugin."""
    checks, text = Gradcheck(kernel.sweep), ""
    kind: Kind = ""
    try:
        if kernel.is_rule:
            checks.rule(kernel.function, *kernel.args, reference=kernel.reference, **kernel.options)
        else:
            function = partial(kernel.function, **kernel.options)
            checks.vjp(partial(kernel.reference, **kernel.options), lambda *args: jax.vjp(function, *args),
                       *kernel.args)  # fmt: skip
    except WrongGradientError as error:
        kind, text = "fault", " ".join(error.report.diagnosis.splitlines()[:3])
    except Exception as error:  # whatever a library raises
        kind, text = "error", f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        console.print(escape(traceback.format_exc(limit=-4)))
    record: dict[str, Any] = checks.records[0] if checks.records else {"cases": 0, "digits": "", "sound": ""}
    digits, sound = (float(record[name]) if record[name] else math.nan for name in ("digits", "sound"))
    counts = record["cases"], record.get("rejected", 0)
    return KernelResult(kernel.library, kernel.name, *counts, digits, sound, kind, text)


@dataclass(frozen=True, kw_only=True)
class KernelSettings:
    """The rules of JAX and of the libraries around it, beside references and mpmath."""

    kinds: tuple[Literal["scalar", "array", "pallas"], ...] = ("scalar", "array", "pallas")
    """The kinds of functions."""
    only: tuple[str, ...] = ()
    """The names of the functions to check; all if none is given."""
    out: Path = Path("report")
    """The folder for kernels.json."""


def run(settings: KernelSettings) -> list[KernelResult]:
    """Check the selected functions, print the table, and write it to kernels.json."""
    from experiments.harness.runner import environment

    selected: list[Callable[[], KernelResult]] = []
    for kind in settings.kinds:
        rules: Any = SCALAR_RULES if kind == "scalar" else array_rules() if kind == "array" else pallas_rules()
        check: Any = compare_scalar if kind == "scalar" else sweep_kernel
        selected += [partial(check, rule) for rule in rules if not settings.only or rule.name in settings.only]
    with progress_bar("functions") as bar:
        results = [check() for check in bar.track(selected, description="")]
    rows = table("library", "function", "cases", "digits", "sound", "kind", "found")
    for found in results:
        figures = (str(found.cases - found.rejected), f"{found.digits:.1f}", f"{found.sound:.1f}")
        rows.add_row(found.library, found.name, *figures, found.kind or "–", escape(found.text or "nothing"))
    console.print(rows)
    counts = {kind: sum(found.kind == kind for found in results) for kind in ("fault", "digits", "error")}
    cases = sum(found.cases - found.rejected for found in results)
    console.print(f"{len(results)} functions, {cases} cases: {counts}", highlight=False)
    settings.out.mkdir(parents=True, exist_ok=True)
    record = {
        "command": COMMAND,
        "about": environment() | {name: _version(name) for name in LIBRARIES},
        "summary": {"functions": len(results), "cases": cases, **counts},
        "results": [found._asdict() for found in results],
    }
    (settings.out / "kernels.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return results


if __name__ == "__main__":
    run(tyro.cli(KernelSettings, prog=COMMAND, description=__doc__))
