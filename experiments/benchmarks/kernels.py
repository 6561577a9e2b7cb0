"""The rules that ship inside JAX and Optax: Pallas kernels over a sweep, scalar functions beside closed forms.

``python -m experiments.benchmarks.kernels`` prints a row for each rule: cases, the worst digits in float32, the digits
that a sound implementation has, and what was found with the smallest input. A kernel is swept by the fixture
``gradcheck`` in Pallas' interpreter. The derivative of a scalar function is compared with a closed form by SciPy, at
ordinary points, at ties and at the edges of its domain.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special
import tyro
from rich.markup import escape

from experiments.harness.console import console, table
from funcnn._numerics.precision import enable_x64
from funcnn.gradcheck.check import WrongGradientError
from funcnn.pytest_plugin.cases import Sweep
from funcnn.pytest_plugin.fixture import Gradcheck

LOST = 0.5
"""A derivative that loses more than this share of a dtype's digits is reported."""


class Finding(NamedTuple):
    """The row of one rule; ``text`` is empty if nothing was found."""

    library: str
    name: str
    cases: int
    digits: float
    sound: float
    text: str


class ScalarRule(NamedTuple):
    """A function of one number, its derivative in closed form by NumPy, and the points at which they are compared."""

    library: str
    name: str
    function: Callable[[Any], Any]
    derivative: Callable[[np.ndarray], np.ndarray]
    points: tuple[float, ...]


class Kernel(NamedTuple):
    """A function of arrays with a rule, a plain function of the same arguments, and the cases."""

    library: str
    name: str
    function: Callable[..., Any]
    reference: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    sweep: Sweep
    options: dict[str, Any]


def _sigmoid(x):
    return scipy.special.expit(x)


def _silu_slope(x):
    return _sigmoid(x) * (1 + x * _sigmoid(-x))


def _mish_slope(x):
    soft = np.logaddexp(0, x)
    return np.tanh(soft) + x * _sigmoid(x) / np.cosh(np.minimum(soft, 300)) ** 2


def _gelu_slope(x):
    return scipy.special.ndtr(x) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


LINE = (-100.0, -30.0, -5.0, -1.0, -1e-3, -1e-30, 0.0, 1e-30, 1e-3, 0.5, 1.0, 5.0, 30.0, 100.0)
SMOOTH_LINE = tuple(x for x in LINE if abs(x) > 1e-20)
UNIT = (1e-30, 1e-6, 0.01, 0.3, 0.5, 0.9, 0.999)
POSITIVE = (1e-30, 1e-6, 0.01, 0.5, 1.0, 3.0, 20.0)

SCALAR_RULES = (
    ScalarRule("jax.nn", "sigmoid", jax.nn.sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x), LINE),
    ScalarRule("jax.nn", "softplus", jax.nn.softplus, _sigmoid, LINE),
    ScalarRule("jax.nn", "log_sigmoid", jax.nn.log_sigmoid, lambda x: _sigmoid(-x), LINE),
    ScalarRule("jax.nn", "silu", jax.nn.silu, _silu_slope, LINE),
    ScalarRule("jax.nn", "mish", jax.nn.mish, _mish_slope, LINE),
    ScalarRule("jax.nn", "gelu (exact)", partial(jax.nn.gelu, approximate=False), _gelu_slope, LINE),
    ScalarRule("jax.nn", "soft_sign", jax.nn.soft_sign, lambda x: 1 / (1 + np.abs(x)) ** 2, LINE),
    ScalarRule("jax.nn", "squareplus", jax.nn.squareplus, lambda x: 0.5 + x / np.sqrt(x * x + 4) / 2, LINE),
    ScalarRule("jax.nn", "relu", jax.nn.relu, lambda x: np.where(x > 0, 1.0, 0.0), LINE),
    ScalarRule("jax.nn", "relu6", jax.nn.relu6, lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0), LINE),
    ScalarRule("jax.nn", "elu", jax.nn.elu, lambda x: np.exp(np.minimum(x, 0)), LINE),
    ScalarRule("jax.nn", "celu", jax.nn.celu, lambda x: np.exp(np.minimum(x, 0)), LINE),
    ScalarRule("jax.nn", "log1mexp", jax.nn.log1mexp, lambda x: 1 / np.expm1(x), POSITIVE),
    ScalarRule("jax.numpy", "sinc", jnp.sinc,
               lambda x: np.where(np.abs(x) < 1e-6, -math.pi**2 * x / 3,
                                  (np.cos(math.pi * x) - np.sinc(x)) / np.where(x == 0, 1, x)), (*UNIT, 0.0, 2.5)),
    ScalarRule("jax.numpy", "logaddexp(x, 0)", lambda x: jnp.logaddexp(x, jnp.zeros_like(x)), _sigmoid, LINE),
    ScalarRule("jax.scipy.special", "logit", jax.scipy.special.logit, lambda x: 1 / (x * (1 - x)), UNIT),
    ScalarRule("jax.scipy.special", "xlogy(x, 2)", lambda x: jax.scipy.special.xlogy(x, 2 * jnp.ones_like(x)),
               lambda x: np.full_like(x, math.log(2)), (0.0, *POSITIVE)),
    ScalarRule("jax.scipy.special", "xlogy(2, y)", lambda y: jax.scipy.special.xlogy(2 * jnp.ones_like(y), y),
               lambda y: 2 / y, POSITIVE),
    ScalarRule("jax.scipy.special", "xlog1py(x, 2)", lambda x: jax.scipy.special.xlog1py(x, 2 * jnp.ones_like(x)),
               lambda x: np.full_like(x, math.log(3)), (0.0, *POSITIVE)),
    ScalarRule("jax.scipy.special", "entr", jax.scipy.special.entr, lambda x: -np.log(x) - 1, POSITIVE),
    ScalarRule("jax.scipy.special", "log_ndtr", jax.scipy.special.log_ndtr,
               lambda x: np.exp(-(x**2) / 2 - scipy.special.log_ndtr(x)) / math.sqrt(2 * math.pi),
               (-30.0, -12.0, -5.0, -1.0, 0.0, 1.0, 4.0, 8.0)),
    ScalarRule("jax.scipy.special", "expi", jax.scipy.special.expi, lambda x: np.exp(x) / x, (-5.0, -1.0, 0.5, 3.0)),
    ScalarRule("jax.scipy.special", "i0e", jax.scipy.special.i0e,
               lambda x: scipy.special.i1e(x) - np.sign(x) * scipy.special.i0e(x), (-20.0, -1.0, 0.5, 3.0, 30.0)),
    ScalarRule("jax.scipy.special", "gammaln", jax.scipy.special.gammaln, scipy.special.digamma,
               (1e-3, 0.5, 1.5, 3.0, 40.0)),
    ScalarRule("jax.scipy.special", "ndtri", jax.scipy.special.ndtri,
               lambda p: math.sqrt(2 * math.pi) * np.exp(scipy.special.ndtri(p) ** 2 / 2), (1e-6, 0.1, 0.5, 0.9)),
)  # fmt: skip


def _pallas() -> tuple[Kernel, ...]:
    """Return the Pallas operations with a rule, in interpret mode. Their import needs JAX's Triton support."""
    from jax.experimental.pallas.ops.gpu import attention, layer_norm, rms_norm

    shapes = ((2, 4, 8), (8,), (8,))
    norms = Sweep(shapes=(((2, 4, 8), (8,), (8,)), ((1, 3, 7), (7,), (7,)), ((3, 17, 130), (130,), (130,))))
    blocks = attention.BlockSizes(16, 16, 16, 16, 16, 16)

    def mha(q, k, v, causal=False):
        return attention.mha(q, k, v, None, 0.5, causal, blocks, "triton", None, 2, None, True)

    def plain_attention(q, k, v, causal=False):
        scores = 0.5 * jnp.einsum("bqhc,bkhc->bhqk", q, k)
        allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool)) | (not causal)
        return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf)), v)

    def plain_layer_norm(x, weight, bias):
        moved = x - x.mean(-1, keepdims=True)
        return moved * jax.lax.rsqrt((moved**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def plain_rms_norm(x, weight, bias):
        return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def interpreted(function):
        return lambda x, weight, bias: function(x, weight, bias, None, 3, 1e-5, "triton", True)

    attended = Sweep(shapes=(((1, 32, 2, 16),) * 3, ((1, 16, 1, 16),) * 3), options={"causal": [False, True]})
    return (
        Kernel("jax.experimental.pallas", "layer_norm", interpreted(layer_norm.layer_norm), plain_layer_norm, shapes,
               norms, {}),
        Kernel("jax.experimental.pallas", "rms_norm", interpreted(rms_norm.rms_norm), plain_rms_norm, shapes, norms,
               {}),
        Kernel("jax.experimental.pallas", "mha", mha, plain_attention, ((1, 32, 2, 16),) * 3, attended,
               {"causal": False}),
    )  # fmt: skip


def _plain_simplex(values):
    """Return the projection onto the simplex by bisection-free search over the size of its support."""
    ordered = jnp.sort(values)[::-1]
    thresholds = (jnp.cumsum(ordered) - 1) / jnp.arange(1, len(values) + 1, dtype=values.dtype)
    return jnp.maximum(values - jnp.max(thresholds), 0)


ARRAY_RULES = (
    Kernel("jax.nn", "softmax", jax.nn.softmax, lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True), ((3, 5),),
           Sweep(), {}),
    Kernel("jax.nn", "logsumexp", jax.nn.logsumexp, lambda x: jnp.log(jnp.exp(x).sum()), ((3, 5),), Sweep(), {}),
    Kernel("optax.projections", "projection_simplex", optax.projections.projection_simplex, _plain_simplex, ((7,),),
           Sweep(shapes=((7,), (2,), (1,), (11,))), {}),
)  # fmt: skip


def compare_scalar(rule: ScalarRule) -> Finding:
    """Compare a derivative by ``jax.grad`` with its closed form, in float32 and float64."""
    texts, worst = [], math.inf
    for dtype in (jnp.float32, jnp.float64):
        with enable_x64(dtype == jnp.float64):
            points = np.asarray(rule.points, dtype)
            found = np.asarray(jax.jit(jax.vmap(jax.grad(rule.function)))(jnp.asarray(points)), np.float64)
        with np.errstate(all="ignore"):
            expected = np.asarray(rule.derivative(points.astype(np.float64)), np.float64)
            info = jnp.finfo(dtype)
            is_asked = np.isfinite(expected) & (np.abs(expected) < float(info.max))
            share = np.abs(found - expected) / np.maximum(np.abs(expected), float(info.tiny) / float(info.eps))
        share = np.where(is_asked, np.where(np.isfinite(found), share, np.inf), 0.0)
        place, most = int(np.argmax(share)), -math.log10(float(info.eps))
        digits = most if not share[place] else max(0.0, min(most, -math.log10(share[place])))
        worst = digits if dtype == jnp.float32 else worst
        if digits < LOST * most:
            values = f"{found[place]:.6g}, closed form {expected[place]:.6g}"
            texts.append(f"{dtype.__name__} at x = {points[place]:.3g}: {values}")
    sound = -math.log10(float(jnp.finfo(jnp.float32).eps))
    return Finding(rule.library, rule.name, 2 * len(rule.points), worst, sound, "; ".join(texts))


def sweep_kernel(kernel: Kernel) -> Finding:
    """Check a rule over its cases by the fixture of the pytest plugin."""
    random = np.random.default_rng(0)
    args = [jnp.asarray(random.normal(size=shape), jnp.float32) for shape in kernel.shapes]
    checks, text = Gradcheck(kernel.sweep), ""
    try:
        checks.rule(kernel.function, *args, reference=kernel.reference, **kernel.options)
    except WrongGradientError as error:
        text = " ".join(error.report.diagnosis.splitlines()[:2])
    (record,) = checks.records
    numbers = (float(record[name]) if record[name] else math.nan for name in ("digits", "sound"))
    return Finding(kernel.library, kernel.name, record["cases"], *numbers, text)


@dataclass(frozen=True, kw_only=True)
class KernelSettings:
    """The rules of JAX and Optax, beside references and closed forms."""

    kinds: tuple[Literal["scalar", "array", "pallas"], ...] = ("scalar", "array", "pallas")
    """The kinds of rules."""
    only: tuple[str, ...] = ()
    """The names of the rules to check; all if none is given."""
    out: Path = Path("report")
    """The folder for kernels.json."""


def run(settings: KernelSettings) -> list[Finding]:
    """Check the selected rules, print the table, and write it to kernels.json."""
    selected: list[Callable[[], Finding]] = []
    for kind in settings.kinds:
        rules: Any = SCALAR_RULES if kind == "scalar" else ARRAY_RULES if kind == "array" else _pallas()
        check: Any = compare_scalar if kind == "scalar" else sweep_kernel
        selected += [partial(check, rule) for rule in rules if not settings.only or rule.name in settings.only]
    findings = [check() for check in selected]
    rows = table("library", "rule", "cases", "digits", "sound", "found")
    for found in findings:
        figures = (str(found.cases), f"{found.digits:.1f}", f"{found.sound:.1f}")
        rows.add_row(found.library, found.name, *figures, escape(found.text or "nothing"))
    console.print(rows)
    settings.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps([found._asdict() for found in findings], indent=1)
    (settings.out / "kernels.json").write_text(text, encoding="utf-8")
    return findings


if __name__ == "__main__":
    run(tyro.cli(KernelSettings, description=__doc__))
