"""Activations in a loss, found by their values: it doesn't matter how they are written."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from scipy.special import expit, ndtr

from funcnn._numerics.arrays import max_abs
from funcnn.gradcheck.explanation.tape import Tape


class Kind(NamedTuple):
    """An activation h of z, and its derivative.

    Fields:
        name: in a sentence.
        value, slope: functions of z, and of z and h.
        rule: the derivative as text.
        is_arithmetic: whether it is a function of arithmetic, such as a power or a clip, whose derivative is not put on
            another path by mistake.
    """

    name: str
    value: Callable
    slope: Callable
    rule: str
    is_arithmetic: bool = False


class Activation(NamedTuple):
    """A place where an activation is taken: the numbers of z and h, and the kind."""

    z: int
    h: int
    kind: Kind


_GELU = math.sqrt(2 / math.pi)


def sigmoid(z):
    """Return 1 / (1 + e^−z)."""
    return expit(z)


def normal_cdf(z):
    """Return the standard normal distribution function."""
    return ndtr(z)


def normal_pdf(z):
    """Return the standard normal density."""
    return np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


def tanh_gelu_slope(z, cube=3 * 0.044715):
    """Return the derivative of GELU's approximation by tanh."""
    inner = np.tanh(_GELU * (z + 0.044715 * z**3))
    return 0.5 * (1 + inner) + 0.5 * z * (1 - inner**2) * _GELU * (1 + cube * z**2)


def softplus(z):
    """Return log(1 + e^z)."""
    return np.logaddexp(z, 0.0)


KINDS = (
    Kind("sigmoid", sigmoid, lambda z, h: h * (1 - h), "h (1 − h)"),
    Kind("tanh", np.tanh, lambda z, h: 1 - h**2, "1 − h²"),
    Kind("ReLU", lambda z: np.maximum(z, 0), lambda z, h: 1.0 * (z > 0), "1 where z > 0, and 0 elsewhere"),
    Kind("softplus", softplus, lambda z, h: sigmoid(z), "σ(z)"),
    Kind("log-sigmoid", lambda z: -softplus(-z), lambda z, h: sigmoid(-z), "1 − σ(z)"),
    Kind(
        "GELU",
        lambda z: z * normal_cdf(z),
        lambda z, h: normal_cdf(z) + z * normal_pdf(z),
        "Φ(z) + z φ(z)",
    ),
    Kind(
        "GELU by tanh",
        lambda z: 0.5 * z * (1 + np.tanh(_GELU * (z + 0.044715 * z**3))),
        lambda z, h: tanh_gelu_slope(z),
        "(1 + t)/2 + z (1 − t²) √(2/π) (1 + 3·0.044715 z²)/2",
    ),
    Kind(
        "SiLU",
        lambda z: z * sigmoid(z),
        lambda z, h: sigmoid(z) * (1 + z * (1 - sigmoid(z))),
        "σ(z) + h (1 − σ(z))",
    ),
    Kind("softsign", lambda z: z / (1 + np.abs(z)), lambda z, h: 1 / (1 + np.abs(z)) ** 2, "1 / (1 + |z|)²"),
    Kind("the exponential", np.exp, lambda z, h: h, "h", True),
    Kind("the logarithm", np.log, lambda z, h: 1 / z, "1 / z", True),
    Kind("the square", np.square, lambda z, h: 2 * z, "2 z", True),
    Kind("the cube", lambda z: z**3, lambda z, h: 3 * z**2, "3 z²", True),
    Kind("the square root", np.sqrt, lambda z, h: 0.5 / h, "1 / (2 h)", True),
    Kind("the absolute value", np.abs, lambda z, h: np.sign(z), "the sign of z", True),
    Kind("the reciprocal", lambda z: 1 / z, lambda z, h: -(h**2), "−1 / z²", True),
    Kind("one over the square root", lambda z: 1 / np.sqrt(z), lambda z, h: -0.5 * h**3, "−1 / (2 z^{3/2})", True),
    Kind("the sine", np.sin, lambda z, h: np.cos(z), "cos z", True),
    Kind("the cosine", np.cos, lambda z, h: -np.sin(z), "−sin z", True),
)


def find_activations(tape: Tape) -> list[Activation]:
    """Return every pair of values of one shape of which one is an activation of the other."""
    by_shape: dict[tuple, list[int]] = {}
    for number, value in enumerate(tape.values):
        if tape.is_active[number] and isinstance(value, np.ndarray) and np.isrealobj(value) and value.size:
            by_shape.setdefault(value.shape, []).append(number)
    found, taken = [], set[tuple[int, int]]()
    with np.errstate(all="ignore"):
        for numbers in by_shape.values():
            for place, z in enumerate(numbers):
                later = numbers[place + 1 :]
                if not later or not np.isfinite(tape.values[z]).all():
                    continue
                below = descendants(tape, z)
                for h in later:
                    kind = _kind(tape.values[z], tape.values[h]) if h in below else None
                    if kind is not None and (h, z) not in taken:
                        taken.add((h, z))
                        found.append(Activation(z, h, kind))
    return found


def descendants(tape: Tape, number: int) -> set[int]:
    """Return the numbers of the values that are computed from a value."""
    found, pending = set[int](), [number]
    while pending:
        for position in tape.consumers.get(pending.pop(), ()):
            for output in tape.steps[position].outputs:
                if output not in found:
                    found.add(output)
                    pending.append(output)
    return found


def _kind(z, h) -> Kind | None:
    if not np.isfinite(h).all() or np.array_equal(z, h):
        return None
    flat_z, flat_h = z.ravel(), h.ravel()
    some = slice(None, None, max(1, flat_z.size // 4))
    scale = 1e-10 * max(max_abs(h), 1e-300)
    for kind in KINDS:
        if kind.name in ("ReLU", "the absolute value") and (z > 0).all():
            continue  # the same number by two ways
        if np.all(np.abs(kind.value(flat_z[some]) - flat_h[some]) <= scale) and np.all(
            np.abs(kind.value(z) - h) <= scale
        ):
            return kind
    return _piecewise_kind(z, h, scale)


def _piecewise_kind(z, h, scale) -> Kind | None:
    """Return leaky ReLU, ELU, or a clip, with the number that is read off."""
    positive = z > 0
    if positive.all() or not positive.any():
        return None
    if np.all(np.abs(h - z)[positive] <= scale):
        low_z, low_h = z[z < 0], h[z < 0]
        if low_z.size and np.ptp(low_h / low_z) <= 1e-9:
            alpha = float((low_h / low_z)[0])
            return Kind(
                f"leaky ReLU (α = {alpha:.4g})",
                lambda z: np.where(z > 0, z, alpha * z),
                lambda z, h: np.where(z > 0, 1.0, alpha),
                f"1 where z > 0, and {alpha:.4g} elsewhere",
            )
        if low_z.size and np.ptp(low_h / np.expm1(low_z)) <= 1e-9:
            alpha = float((low_h / np.expm1(low_z))[0])
            return Kind(
                f"ELU (α = {alpha:.4g})",
                lambda z: np.where(z > 0, z, alpha * np.expm1(z)),
                lambda z, h: np.where(z > 0, 1.0, h + alpha),
                "1 where z > 0, and h + α elsewhere",
            )
    low, high = float(h.min()), float(h.max())
    is_cut = low < high and ((h == low).sum() > 1 or (h == high).sum() > 1)
    if is_cut and np.all(np.abs(np.clip(z, low, high) - h) <= scale):
        return Kind(
            f"the clip to [{low:.4g}, {high:.4g}]",
            lambda z: np.clip(z, low, high),
            lambda z, h: 1.0 * ((z > low) & (z < high)),
            f"1 between {low:.4g} and {high:.4g}, and 0 outside",
            True,
        )
    return None


def chosen_slopes(activation: Activation, tape: Tape) -> Iterator[tuple[str, np.ndarray]]:
    """Yield wrong derivatives of an activation that people write, with their text."""
    z, h, kind = tape.values[activation.z], tape.values[activation.h], activation.kind
    right = kind.slope(z, h)
    for text, slope in {
        "left out": np.ones_like(z),
        "taken twice": right**2,
        "taken at the activation, f′(h)": kind.slope(h, kind.value(h)),
        "taken at z a second time, f′(f′)": kind.slope(right, kind.value(right)),
    }.items():
        yield text, slope
    for text, slope in {
        "h (1 − h), as for a sigmoid": h * (1 - h),
        "1 − h², as for tanh": 1 - h**2,
        "1 where h > 0, as for ReLU": 1.0 * (h > 0),
        "1 where z > 0, as for ReLU": 1.0 * (z > 0),
        "1 where h ≥ 0": 1.0 * (h >= 0),
        "1 where z < 0": 1.0 * (z < 0),
        "the activation h itself": h,
        "1 − h": 1 - h,
        "1 + h": 1 + h,
        "z (1 − z)": z * (1 - z),
        "1 − z²": 1 - z**2,
        "h²": h**2,
        "2 h": 2 * h,
        "z itself": z,
        "σ(z)": sigmoid(z),
        "σ(−z)": sigmoid(-z),
        "σ(h)": sigmoid(h),
        "σ(z) (1 − σ(z)), a sigmoid's": sigmoid(z) * (1 - sigmoid(z)),
        "σ(h) (1 − σ(h))": sigmoid(h) * (1 - sigmoid(h)),
        "1 − tanh²(z), tanh's": 1 - np.tanh(z) ** 2,
        "1 − tanh²(h)": 1 - np.tanh(h) ** 2,
        "tanh(z)": np.tanh(z),
        "1 − tanh(z)": 1 - np.tanh(z),
        "Φ(z)": normal_cdf(z),
        "φ(z)": normal_pdf(z),
        "Φ(z) + φ(z), without the z": normal_cdf(z) + normal_pdf(z),
        "that of GELU by tanh": tanh_gelu_slope(z),
        "that of GELU by tanh with the cube's 3 left out": tanh_gelu_slope(z, 0.044715),
        "that of GELU by tanh with its inner derivative left out": tanh_gelu_slope(z, 0.0),
        "that of the exact GELU": normal_cdf(z) + z * normal_pdf(z),
        "that of SiLU": sigmoid(z) * (1 + z * (1 - sigmoid(z))),
        "σ(z) + σ(z) (1 − σ(z)), without the z": sigmoid(z) * (2 - sigmoid(z)),
        "e^z": np.exp(z),
        "e^−z": np.exp(-z),
        "1 / z": 1 / z,
        "1 / h": 1 / h,
        "1 / z²": 1 / z**2,
        "log z": np.log(z),
        "1 / (2 h)": 0.5 / h,
        "h / 2": 0.5 * h,
        "the sign of z": np.sign(z),
        "|z|": np.abs(z),
        "z²": z**2,
        "1 / (1 + |z|)": 1 / (1 + np.abs(z)),
        "cos z": np.cos(z),
        "sin z": np.sin(z),
        "h / z": h / z,
        "the absolute value of the right one": np.abs(right),
        "1 where z > 0, and 0.01 elsewhere": np.where(z > 0, 1.0, 0.01),
        "e^z on the negative side": np.where(z > 0, 1.0, np.exp(z)),
        "h + 1 on the negative side": np.where(z > 0, 1.0, h + 1),
        "h on the negative side": np.where(z > 0, 1.0, h),
        "1 on the other side": np.where(z > 0, right[z < 0].mean() if (z < 0).any() else 0.0, 1.0),
    }.items():
        yield text, slope
    bounds = (float(h.min()), float(h.max()), 0.5, -0.5, 1.0, -1.0)
    for bound in dict.fromkeys(bounds):
        yield f"1 where z < {bound:.4g}", 1.0 * (z < bound)
        yield f"1 where z > {bound:.4g}", 1.0 * (z > bound)
        yield f"1 where |z| < {abs(bound):.4g}", 1.0 * (np.abs(z) < abs(bound))
    yield "z (1 − |z|), or another mask of the wrong variable", z * (1 - np.abs(z))
