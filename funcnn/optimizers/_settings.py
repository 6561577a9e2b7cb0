"""Types and validation of optimizers' hyperparameters.

Python and NumPy numbers are validated. Arrays and tracers are not, because their values may be unknown
(``optax.inject_hyperparams``).
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from funcnn._checks import check_real

LearningRate: TypeAlias = ArrayLike | optax.Schedule
WeightDecay: TypeAlias = ArrayLike | optax.Schedule
Mask: TypeAlias = PyTree[bool] | Callable[[PyTree], PyTree[bool]]


def check_learning_rate(name: str, value: Any) -> None:
    """Raise unless the learning rate is a schedule or a number that is not negative."""
    if not callable(value):
        check_not_negative(name, value, "The updates already include the minus sign; to ascend, negate the gradient.")


def check_weight_decay(name: str, value: Any) -> None:
    """Raise unless the weight decay is a schedule or a number that is not negative."""
    if not callable(value):
        check_not_negative(name, value, "It multiplies the parameters, and the product is subtracted from them.")


def check_decay(name: str, value: Any) -> None:
    """Raise unless the decay of a moving average is in [0, 1)."""
    if _is_readable(name, value) and not 0 <= value < 1:
        raise ValueError(
            f"{name}: expected a decay in [0, 1), got {value}. It is the share kept at every step; 0.9 is usual."
        )


def check_eps(name: str, value: Any) -> None:
    """Raise if ε is negative."""
    check_not_negative(name, value, "It keeps a denominator from being 0; 1e-8 is usual.")


def check_not_negative(name: str, value: Any, advice: str) -> None:
    """Raise if a number is negative."""
    if _is_readable(name, value) and value < 0:
        raise ValueError(f"{name}: expected a number that isn't negative, got {value}. {advice}")


def check_bound(name: str, value: Any) -> None:
    """Raise unless a bound is positive. An infinite bound clips nothing."""
    if isinstance(value, float) and value == math.inf:
        return
    if _is_readable(name, value) and value <= 0:
        raise ValueError(
            f"{name}: expected a positive number, got {value}. Clipping to it leaves no update; 1.0 is usual."
        )


def _is_readable(name, value):
    if isinstance(value, jax.Array | np.ndarray):
        return False
    check_real(name, value.item() if isinstance(value, np.generic) else value)
    return True
