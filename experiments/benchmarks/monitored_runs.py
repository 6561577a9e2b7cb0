"""Monitored training runs on data sets that packages ship.

A case holds everything that a run depends on; a faulty one also holds the fault and the findings that are right.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from sklearn import datasets

import funcnn as fnn
from funcnn.health.kinds import Kind
from funcnn.health.measures import monitored_value_and_grad, update_ratios
from funcnn.health.record import HealthRecord, ModelFacts, input_facts, model_facts, target_facts

WIDTH, STEPS, EVERY, BATCH_SIZE = 32, 400, 10, 32
OPTIMIZERS = {"sgd": fnn.sgd, "momentum": fnn.momentum, "adam": fnn.adam}
RATES = {"sgd": 0.2, "momentum": 0.05, "adam": 5e-3}


class Data(NamedTuple):
    """Features, targets, and the quality of a good run: an accuracy, or R² of values."""

    x: np.ndarray
    y: np.ndarray
    quality: float


class TrainingCase(NamedTuple):
    """A run to train: data, network, optimizer, seed, and for a faulty one the fault.

    Fields:
        name: unique.
        data: a name of ``DATA``.
        model, loss: what is trained.
        optimizer: a name of ``OPTIMIZERS``; ``rate`` its learning rate.
        seed: of the initial parameters and the batches.
        kinds: the findings that are right; empty for a healthy run.
        layer: the layer that was broken; empty if it was not a single one.
        twin: the healthy case from which it was derived.
        break_data, break_params: what was done to the data or to the initial parameters.
        is_frozen: whether the gradients are lost on their way to the optimizer.
    """

    name: str
    data: str
    model: fnn.Layer
    loss: fnn.Loss
    optimizer: str
    rate: float
    seed: int
    kinds: tuple[Kind, ...] = ()
    layer: str = ""
    twin: "TrainingCase | None" = None
    break_data: Callable[[Data], Data] | None = None
    break_params: Callable | None = None
    is_frozen: bool = False


class MonitoredRun(NamedTuple):
    """The run of a case: the record and the facts for ``diagnose_health``, and the final quality."""

    record: HealthRecord
    facts: ModelFacts
    quality: float


def train(case: TrainingCase) -> MonitoredRun:
    """Train a case with a measurement at every tenth step."""
    data = DATA[case.data]()
    if case.break_data is not None:
        data = case.break_data(data)
    x, y = jnp.asarray(data.x, jnp.float32), _as_targets(data.y, case)
    params, state = jax.tree.map(lambda leaf: leaf.astype(x.dtype), case.model.init(jax.random.key(case.seed)))
    if case.break_params is not None:
        params = case.break_params(params)
    rows = np.random.default_rng(case.seed).integers(0, len(x), (STEPS, BATCH_SIZE))
    keys = jax.random.split(jax.random.key(case.seed + 1), STEPS)
    prediction, step_losses, watched = _train(
        params, state, x, y, rows, keys, case.rate, float(not case.is_frozen),
        model=case.model, loss=case.loss, optimizer=case.optimizer,
    )  # fmt: skip
    measures, ratios = jax.tree.map(lambda figures: np.asarray(figures[::EVERY]), watched)
    facts = model_facts(case.model, BATCH_SIZE)
    record = HealthRecord(
        tuple(layer.name for layer in facts.layers), np.arange(0, STEPS, EVERY), measures, ratios,
        np.asarray(step_losses), np.array([]), input_facts(x), target_facts(y, case.loss),
    )  # fmt: skip
    return MonitoredRun(record, facts, _quality(np.asarray(prediction), data.y, case))


@partial(jax.jit, static_argnames=("model", "loss", "optimizer"))
def _train(params, state, x, y, rows, keys, rate, share, *, model, loss, optimizer):
    """Return the prediction after training, the losses of all steps, and their measures.

    ``fit`` measures some steps only. Here there are hundreds of small networks: a single kind of step saves more time
    in compilation than the measurement of every step costs.
    """
    optimizer = OPTIMIZERS[optimizer](rate)
    monitored = monitored_value_and_grad(model, loss)

    def step(carry, part):
        params, state, opt_state = carry
        rows, key = part
        (value, state), gradients, measures = monitored(params, state, (x[rows], y[rows]), key=key)
        updates, opt_state = optimizer.update(jax.tree.map(lambda g: share * g, gradients), opt_state, params)
        ratios = update_ratios(model, updates, params)
        return (optax.apply_updates(params, updates), state, opt_state), (value, measures, ratios)

    (params, state, _), (losses, *watched) = lax.scan(step, (params, state, optimizer.init(params)), (rows, keys))
    return model.forward(params, state, x, train=False)[0], losses, tuple(watched)


def _as_targets(y, case):
    """Return labels for the losses on classes, and values in the prediction's shape for the others."""
    if y.ndim == 1 and case.loss.spec.targets == "classes":
        return jnp.asarray(y, jnp.int32)
    return jnp.asarray(y if y.ndim == 2 else y[:, None], jnp.float32)


def _quality(prediction, y, case) -> float:
    """Return the accuracy, or R² of values, on the data of the run; 0 if the prediction isn't finite."""
    if not np.isfinite(prediction).all():
        return 0.0
    if y.ndim == 2:
        return 1 - float(((prediction - y) ** 2).mean() / y.var(axis=0).mean())
    if prediction.shape[1] > 1:
        return float((prediction.argmax(axis=1) == y).mean())
    threshold = 0.0 if case.loss.spec.prediction == "logits" else 0.5
    return float(((prediction[:, 0] > threshold) == (y > 0)).mean())


# Data


def _standardised(x):
    return (x - x.mean(axis=0)) / np.where(x.std(axis=0) > 0, x.std(axis=0), 1)


def _shipped(load, quality, *, scale=_standardised):
    @cache
    def data():
        x, y = load(return_X_y=True)
        return Data(scale(x), y, quality)

    return data


@cache
def _diabetes():
    x, y = datasets.load_diabetes(return_X_y=True)
    return Data(_standardised(x), _standardised(y[:, None]), 0.45)


@cache
def _moons():
    return Data(_standardised((made := datasets.make_moons(400, noise=0.1, random_state=0))[0]), made[1], 0.93)


@cache
def _spirals():
    random = np.random.default_rng(1)
    angle = random.uniform(0.5, 5, 600)
    arm = random.integers(0, 2, 600)
    x = angle[:, None] * np.stack([np.cos(angle + np.pi * arm), np.sin(angle + np.pi * arm)], axis=1)
    return Data(_standardised(x + random.normal(0, 0.1, x.shape)), arm, 0.9)


@cache
def _xor():
    x = np.random.default_rng(2).normal(size=(400, 2))
    return Data(x, (x[:, 0] * x[:, 1] > 0).astype(int), 0.93)


@cache
def _sine():
    x = np.linspace(-1, 1, 256)[:, None]
    return Data(_standardised(x), np.sin(3 * x) + np.random.default_rng(3).normal(0, 0.05, x.shape), 0.9)


@cache
def _noisy_sine():
    """Return data with noise as half of the targets' variance, so that R² is at most 1/2."""
    x = np.linspace(-1, 1, 512)[:, None]
    return Data(_standardised(x), np.sin(3 * x) + np.random.default_rng(4).normal(0, 0.7, x.shape), 0.4)


@cache
def _noisy_xor():
    """Return data with a tenth of wrong labels."""
    x, y, _ = _xor()
    return Data(x, np.where(np.random.default_rng(5).random(len(y)) < 0.1, 1 - y, y), 0.85)


@cache
def _noisy_moons():
    x, y = datasets.make_moons(400, noise=0.35, random_state=0)
    return Data(_standardised(x), y, 0.85)


DATA: dict[str, Callable[[], Data]] = {
    "digits": _shipped(datasets.load_digits, 0.9, scale=lambda x: x / 16),
    "wine": _shipped(datasets.load_wine, 0.95),
    "cancer": _shipped(datasets.load_breast_cancer, 0.95),
    "iris": _shipped(datasets.load_iris, 0.93),
    "diabetes": _diabetes,
    "moons": _moons,
    "spirals": _spirals,
    "xor": _xor,
    "sine": _sine,
    "noisy_sine": _noisy_sine,
    "noisy_xor": _noisy_xor,
    "noisy_moons": _noisy_moons,
}
SHAPES = {
    "digits": (64, 10), "wine": (13, 3), "cancer": (30, 1), "iris": (4, 3), "diabetes": (10, 1), "moons": (2, 1),
    "spirals": (2, 1),
    "xor": (2, 1), "sine": (1, 1), "noisy_sine": (1, 1), "noisy_xor": (2, 1),
    "noisy_moons": (2, 1),
}  # fmt: skip
REGRESSIONS = {"diabetes", "sine", "noisy_sine"}


def usual_loss(data: str) -> fnn.Loss:
    """Return the loss on logits, or the squared error for a regression."""
    if data in REGRESSIONS:
        return fnn.mean_squared_error
    return fnn.sigmoid_cross_entropy if SHAPES[data][1] == 1 else fnn.softmax_cross_entropy


def network(data: str, depth: int, activation: fnn.Layer, output: fnn.Layer = fnn.identity, **options) -> fnn.Layer:
    """Return an ``mlp`` with ``depth`` hidden layers of one width."""
    features, outputs = SHAPES[data]
    return fnn.mlp((features, *[WIDTH] * depth, outputs), activation, output, **options)
