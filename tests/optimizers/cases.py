"""The optimizers under test, each with optax's optimizer of the same settings. To add a setting, add a row."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnn as fnn
from tests.cases import WIDEST

TIGHT = 1e-12 if WIDEST is jnp.float64 else 1e-5
SCHEDULE = optax.warmup_cosine_decay_schedule(0.0, 0.1, 20, 200)
FALLING = optax.exponential_decay(0.1, 50, 0.5)


def kernels(params):
    """A typical mask: vectors and matrices decay, scalars don't."""
    return jax.tree.map(lambda p: p.ndim > 0, params)


class Pair(NamedTuple):
    """An optimizer with some settings: funcnn's, optax's, their constructors and the settings."""

    name: str
    ours: optax.GradientTransformation
    theirs: optax.GradientTransformation
    constructors: tuple[Any, Any]
    settings: dict[str, Any]


def pair(constructor: str, label: str = "", optax_name: str = "", **settings: Any) -> Pair:
    """Return a row; ``label`` distinguishes settings of the same constructor."""
    ours, theirs = getattr(fnn, constructor), getattr(optax, optax_name or constructor)
    return Pair(f"{constructor} {label}".strip(), ours(**settings), theirs(**settings), (ours, theirs), settings)


PAIRS = [
    pair("sgd", learning_rate=0.1),
    pair("sgd", "schedule", learning_rate=SCHEDULE),
    pair("sgd", "momentum", learning_rate=0.1, momentum=0.9),
    pair("sgd", "nesterov, schedule", learning_rate=SCHEDULE, momentum=0.5, nesterov=True),
    pair("sgd", "accumulator_dtype", learning_rate=0.1, momentum=0.9, accumulator_dtype=jnp.float32),
    pair("rmsprop", learning_rate=1e-2),
    pair("rmsprop", "eps outside, momentum", learning_rate=1e-2, eps_in_sqrt=False, eps=1e-3, momentum=0.9),
    pair("rmsprop", "nesterov, schedule", learning_rate=SCHEDULE, decay=0.5, momentum=0.9, nesterov=True),
    pair("rmsprop", "centered", learning_rate=1e-2, centered=True, eps=1e-2),
    pair("rmsprop", "corrected", learning_rate=1e-2, bias_correction=True, initial_scale=1.0),
    pair(
        "rmsprop",
        "centered, corrected, eps outside",
        learning_rate=1e-2,
        centered=True,
        bias_correction=True,
        eps_in_sqrt=False,
    ),
    pair("adagrad", learning_rate=0.1),
    pair("adagrad", "from 0, schedule", learning_rate=SCHEDULE, initial_accumulator_value=0.0, eps=1e-3),
    pair("adam", learning_rate=1e-2),
    pair("adam", "schedule", learning_rate=SCHEDULE),
    pair("adam", "settings", learning_rate=1e-2, b1=0.5, b2=0.9, eps=1e-4, eps_root=1e-6),
    pair("adam", "no decay", learning_rate=1e-2, b1=0, b2=0.0),
    pair("adam", "mu_dtype", learning_rate=1e-2, mu_dtype=jnp.float32),
    pair("adam", "nesterov", learning_rate=1e-2, nesterov=True),
    pair("nadam", learning_rate=1e-2, b1=0.8, eps_root=1e-6),
    pair("adamw", learning_rate=1e-2),
    pair("adamw", "mask, schedule", learning_rate=SCHEDULE, weight_decay=0.1, mask=kernels),
    pair("adamw", "nesterov, mu_dtype", learning_rate=1e-2, nesterov=True, mu_dtype=jnp.float32, weight_decay=0.1),
    pair("adamax", learning_rate=1e-2),
    pair("adamax", "settings, schedule", learning_rate=SCHEDULE, b1=0.5, b2=0.9, eps=1e-4),
    pair("lion", learning_rate=1e-2),
    pair("lion", "mask, mu_dtype", learning_rate=SCHEDULE, b1=0.8, b2=0.9, mu_dtype=jnp.float32, mask=kernels),
    pair("clip_by_value", optax_name="clip", max_delta=0.5),
    pair("clip_by_global_norm", max_norm=1.0),
    pair("add_decayed_weights", weight_decay=0.1),
    pair("add_decayed_weights", "mask", weight_decay=0.1, mask=kernels),
    pair("add_decayed_weights", "none", weight_decay=0.0),
]

# Before 0.2.6 optax took a weight decay for a number.
if "count" in optax.add_decayed_weights(FALLING).init(())._fields:
    PAIRS += [
        pair("adamw", "scheduled decay", learning_rate=1e-2, weight_decay=FALLING),
        pair("add_decayed_weights", "schedule, mask", weight_decay=FALLING, mask=kernels),
    ]


def assert_close(trees, expected, tolerance):
    """Assert that each entry is within ``tolerance`` of optax's, relative to the largest value it has at any step."""

    def compare(path, array, wanted):
        array, wanted = np.asarray(array), np.asarray(wanted)
        if array.dtype.itemsize < 4:
            array, wanted = array.astype(np.float32), wanted.astype(np.float32)
        # The difference of two equal infinities is NaN.
        with np.errstate(invalid="ignore"):
            scale = np.max(np.abs(wanted), axis=0, initial=0.0, where=np.isfinite(wanted))
            close = np.abs(array - wanted) <= tolerance * np.maximum(np.abs(wanted), scale)
        same = close | (array == wanted) | (np.isnan(array) & np.isnan(wanted))
        assert same.all(), f"{jax.tree_util.keystr(path)}: {array[~same][:3]} for {wanted[~same][:3]}"

    jax.tree_util.tree_map_with_path(compare, trees, expected)
