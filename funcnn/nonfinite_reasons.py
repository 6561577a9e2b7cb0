"""The points at which operations or their derivatives are not finite, in words, with the usual remedies."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

_DENOMINATOR = (
    "choose the denominator before the division (double where): d = jnp.where(is_zero, 1.0, d), then "
    "jnp.where(is_zero, 0.0, n / d)"
)
_ROOT = (
    "add a small number under the root, sqrt(x + 1e-12), or use the double where: "
    "jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)"
)
_LOG = (
    "take log(jnp.maximum(x, tiny)), or compute from the logits: jax.nn.log_softmax, jax.nn.log_sigmoid, jnp.log1p, "
    "jax.scipy.special.xlogy for x log x"
)
_EXP = (
    "subtract the largest argument first, as jax.nn.softmax and jax.nn.logsumexp do, or use jax.nn.sigmoid, "
    "jax.nn.softplus, jnp.expm1 or jnp.logaddexp"
)
_MASK = (
    "a row may be masked everywhere: write jnp.finfo(dtype).min in the place of -inf, or choose the row's result "
    "afterwards and its argument before (double where)"
)
_RANGE = "the result is beyond the range of the dtype: use a wider dtype, or scale the values before"
_EDGE = "clip the argument to the inside of the domain, jnp.clip(x, -1 + 1e-6, 1 - 1e-6)"
_POWER = "choose the base before the power (double where): jnp.where(x > 0, jnp.where(x > 0, x, 1.0) ** p, 0.0)"


class Reason(NamedTuple):
    """What happens at an operation, and the remedy."""

    text: str
    remedy: str


class Singularity(NamedTuple):
    """Where the derivative of an operation isn't finite.

    Fields:
        test: from the operands to whether an entry is such a point.
        text: the point in words.
        remedy: what to change.
    """

    test: Callable[..., Any]
    text: str
    remedy: str

    def in_gradient(self, operands: Sequence[Any], index: tuple[int, ...] | None) -> Reason:
        """Return the reason why the gradient isn't finite."""
        return Reason(f"the derivative of {self.text} is not finite", self.remedy)


def _is_tiny(x):
    return np.abs(x) < np.finfo(np.result_type(x)).tiny


def _log_overflow(x):
    return np.asarray(x) > np.log(np.finfo(np.result_type(x)).max)


SINGULAR: dict[str, Singularity] = {
    "sqrt": Singularity(_is_tiny, "sqrt at 0", _ROOT),
    "rsqrt": Singularity(_is_tiny, "1/sqrt at 0", _ROOT),
    "cbrt": Singularity(_is_tiny, "the cube root at 0", _POWER),
    "log": Singularity(_is_tiny, "log at 0", _LOG),
    "log1p": Singularity(lambda x: np.asarray(x) == -1, "log1p at -1", _LOG),
    "div": Singularity(lambda n, d: _is_tiny(d) | np.zeros(np.shape(n), bool), "a quotient at denominator 0",
                       _DENOMINATOR),
    "pow": Singularity(lambda x, p: (np.asarray(x) == 0) & (np.asarray(p) < 1), "a power at base 0", _POWER),
    "integer_pow": Singularity(_is_tiny, "a negative power at 0", _DENOMINATOR),
    "atan2": Singularity(lambda y, x: (np.asarray(y) == 0) & (np.asarray(x) == 0), "atan2 at (0, 0)",
                         "choose both arguments before the call (double where)"),
    "asin": Singularity(lambda x: np.abs(x) == 1, "asin at the edge of its domain", _EDGE),
    "acos": Singularity(lambda x: np.abs(x) == 1, "acos at the edge of its domain", _EDGE),
    "atanh": Singularity(lambda x: np.abs(x) == 1, "atanh at the edge of its domain", _EDGE),
    "acosh": Singularity(lambda x: np.asarray(x) == 1, "acosh at 1", "keep the argument above 1 + 1e-6"),
    "erf_inv": Singularity(lambda x: np.abs(x) == 1, "erf_inv at the edge of its domain", _EDGE),
    "exp": Singularity(_log_overflow, "exp of a large number, an overflow,", _EXP),
    "exp2": Singularity(lambda x: np.asarray(x) >= np.finfo(np.result_type(x)).maxexp, "2 to a large power,", _EXP),
}  # fmt: skip
"""The operations whose derivative has such points, by the names of their primitives."""


def remedy_by_choice(name: str) -> str:
    """Return the remedy where ``jnp.where`` drops the value, but not its derivative: 0 times an infinity is NaN."""
    return (
        f"jnp.where drops the value, but its gradient is still 0 times an infinite derivative. Choose the argument of "
        f"{name} as well (double where): x_safe = jnp.where(ok, x, 1.0), then jnp.where(ok, f(x_safe), other)"
    )


def reason_of(name: str, entries: Sequence[float | None], value: str) -> Reason:
    """Return why an operation isn't finite.

    Args:
        name: of the primitive.
        entries: of its operands at the place of the output; ``None`` where the shapes differ.
        value: what is in the result.
    """
    first = entries[0] if entries else None
    second = entries[1] if len(entries) > 1 else None
    match name:
        case "log" | "log1p" | "log2" if first is not None:
            zero = -1 if name == "log1p" else 0
            return Reason(
                f"{name} of {first:g}" if first == zero else f"{name} of {first:.4g}, outside its domain", _LOG
            )
        case "sqrt" | "rsqrt" if first is not None:
            return Reason(f"{name} of {first:.4g}", _ROOT)
        case "div" if second == 0:
            return Reason("0/0" if first == 0 else "a division by 0", _DENOMINATOR)
        case "div" if first is not None and second is not None and not np.isfinite([first, second]).any():
            return Reason("inf/inf", _EXP)
        case "sub" | "add" if first is not None and second is not None and np.isinf([first, second]).all():
            return Reason("inf − inf", _MASK)
        case "mul" if 0 in entries:
            return Reason("0 times an infinity", "choose the factor before the product (double where)")
        case "exp" | "exp2" | "expm1" | "sinh" | "cosh" | "logistic":
            return Reason(f"{name} of {first:.4g}, an overflow" if first is not None else "an overflow", _EXP)
        case "pow" | "integer_pow":
            base = "a number" if first is None else f"{first:.4g}"
            return Reason(f"a power of {base}", _POWER)
        case "asin" | "acos" | "atanh" | "erf_inv":
            return Reason(f"{name} of {first:.4g}, at or outside the edge of its domain" if first is not None
                          else f"{name} outside its domain", _EDGE)  # fmt: skip
        case "acosh":
            return Reason("acosh below 1", "keep the argument above 1 + 1e-6")
        case "cholesky" | "lu" | "eigh" | "triangular_solve" | "custom_linear_solve":
            return Reason(f"{name} of a matrix that has no such factors or is singular",
                          "add a small multiple of the identity to the matrix")  # fmt: skip
        case "convert_element_type":
            return Reason("a cast to a dtype of smaller range", _RANGE)
        case "reduce_max" | "reduce_min":
            return Reason("the largest or smallest entry of none, or of infinities alone", _MASK)
    if value == "NaN" and any(entry is not None and np.isinf(entry) for entry in entries):
        return Reason(f"{name} of an infinity", _MASK)
    if value == "NaN" and name in ("reduce_sum", "dot_general", "cumsum"):
        return Reason(f"{name} over infinities of both signs, or over 0 times an infinity", _MASK)
    return Reason(f"{name} beyond the range of its dtype or outside its domain", _RANGE)
