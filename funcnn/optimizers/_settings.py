"""An optimizer's settings: their types, and what is refused before a step is taken.

Numbers are judged. Arrays and tracers pass, for their values may not be known yet (``optax.inject_hyperparams``).
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
    """Refuse a learning rate that is neither a schedule nor a number that goes downhill."""
    if not callable(value):
        check_not_negative(name, value, "The updates carry the minus sign already; to climb, negate the gradient.")


def check_weight_decay(name: str, value: Any) -> None:
    """Refuse a weight decay that is neither a schedule nor a number that draws towards 0."""
    if not callable(value):
        check_not_negative(name, value, "It multiplies the parameters, which are then subtracted.")


def check_decay(name: str, value: Any) -> None:
    """Refuse a decay with which a mean would stand still or grow without end."""
    if _is_readable(name, value) and not 0 <= value < 1:
        raise ValueError(
            f"{name}: expected a decay in [0, 1), got {value}. It is the share that stays at a step; 0.9 is usual."
        )


def check_eps(name: str, value: Any) -> None:
    """Refuse a negative ε."""
    check_not_negative(name, value, "It keeps a denominator away from 0; 1e-8 is usual.")


def check_not_negative(name: str, value: Any, advice: str) -> None:
    """Refuse a number below 0."""
    if _is_readable(name, value) and value < 0:
        raise ValueError(f"{name}: expected a number that isn't negative, got {value}. {advice}")


def check_bound(name: str, value: Any) -> None:
    """Refuse a bound that lets nothing pass; infinity lets everything pass."""
    if isinstance(value, float) and value == math.inf:
        return
    if _is_readable(name, value) and value <= 0:
        raise ValueError(
            f"{name}: expected a positive number, got {value}. Clipped to that, no update would be left; 1.0 is usual."
        )


def _is_readable(name, value):
    if isinstance(value, jax.Array | np.ndarray):
        return False
    check_real(name, value.item() if isinstance(value, np.generic) else value)
    return True
