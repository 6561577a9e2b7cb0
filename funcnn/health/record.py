"""The record of a run: the measures of its steps, and the facts of its data and model."""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from funcnn.health.measures import LayerMeasures
from funcnn.layers.traversal import PlacedLayer, leaf_layers, output_leaf, spec_of
from funcnn.losses import loss_spec
from funcnn.types import Layer, Loss, LossSpec

_MOST_ENTRIES = 2**24
"""The largest float64 array of one-hot rows that labels are expanded to, 128 MiB."""

_SUMS_TO_ONE = 1e-3
"""How far a row of probabilities in bfloat16, the coarsest dtype, is from 1."""


class InputFacts(NamedTuple):
    """The features before training.

    Fields:
        mean, spread: the mean and the standard deviation of each, ``(features,)``; empty for tokens.
        positions: the product of the axes between the batch and the features, 1 for vectors.
    """

    mean: np.ndarray
    spread: np.ndarray
    positions: int = 1


class TargetFacts(NamedTuple):
    """The targets before training, and what their loss can be.

    Fields:
        loss: the loss's name, ``softmax_cross_entropy``; ``loss`` for one without a spec.
        dtype: the targets' dtype.
        form: integer class ``labels``, ``one-hot`` rows, rows of ``probabilities``, or any ``values``.
        lowest, highest: the range of their entries.
        balance: the share of each class, ``(classes,)``; of values, the mean of each output.
        variance: the mean over the outputs of their variance.
        whole: whether every entry is a whole number.
        constant_loss: the loss of the best prediction that does not depend on x; NaN where the loss's spec has no
            ``constant_loss``, or the targets lie outside its range.
        lowest_loss: the loss of a prediction that equals the targets; 0 where they are values, labels or one-hot.
        prediction, targets: of the loss's spec, ``None`` where it does not say.
        between_batches: the share of the targets' variance that lies between the batches of an iterable, and not inside
            them: about 1 over the batch size for shuffled samples, 1 for samples that are sorted; 0 for arrays.
    """

    loss: str
    dtype: str
    form: Literal["labels", "one-hot", "probabilities", "values"]
    lowest: float
    highest: float
    balance: np.ndarray
    variance: float
    whole: bool
    constant_loss: float
    lowest_loss: float
    prediction: Literal["values", "logits", "probabilities", "log_probabilities"] | None = None
    targets: Literal["values", "binary", "signs", "classes"] | None = None
    between_batches: float = 0.0


class LayerFacts(NamedTuple):
    """A leaf layer: its place and name, and the facts of its spec that the rules read."""

    name: str
    units: Literal["saturating", "rectifying"] | None
    lowest: float
    highest: float
    sums_to_one: bool
    drop_rate: float = 0.0
    mixes_samples: bool = False


class ModelFacts(NamedTuple):
    """The leaf layers of a model in forward order, the samples of a step, and the facts of the model's output."""

    layers: tuple[LayerFacts, ...]
    batch_size: int
    output: LayerFacts


class HealthRecord(NamedTuple):
    """The input of ``diagnose_health``.

    Fields:
        names: of the leaf layers, from ``layer_names``.
        steps: the numbers of the sampled steps, from 0, ascending, ``(sampled,)``.
        measures: ``LayerMeasures`` of arrays ``(sampled, layers)``.
        update_ratios: of the same steps, ``(sampled, layers)``.
        step_losses: the loss of every step before its update, ``(steps,)``.
        validation_losses: of every epoch, or empty.
        input: the features' facts.
        target: the targets' facts.
    """

    names: tuple[str, ...]
    steps: np.ndarray
    measures: LayerMeasures
    update_ratios: Float[Array, "sampled layers"] | np.ndarray
    step_losses: Float[Array, " steps"] | np.ndarray
    validation_losses: Float[Array, " epochs"] | np.ndarray
    input: InputFacts
    target: TargetFacts


def model_facts(model: Layer, batch_size: int) -> ModelFacts:
    """Return the facts of a model for the rules.

    Args:
        model: any layer.
        batch_size: samples a step.

    Returns:
        The facts.

    Example:
        >>> from funcnn.models import perceptron
        >>> model_facts(perceptron(2), 16).layers[1][:4]
        ('layers[1] sigmoid', 'saturating', 0.0, 1.0)
    """
    last = output_leaf(model)
    output = LayerFacts("the output", None, -math.inf, math.inf, False) if last is None else _layer_facts(last)
    return ModelFacts(tuple(map(_layer_facts, leaf_layers(model))), batch_size, output)


def _layer_facts(leaf: PlacedLayer) -> LayerFacts:
    spec = spec_of(leaf.layer)
    return LayerFacts(
        leaf.name, spec.units, *spec.output_range, spec.sums_to_one, spec.drop_rate, spec.mixes_samples
    )  # fmt: skip


def input_facts(x: Any) -> InputFacts:
    """Return the features' means and standard deviations over all samples and positions.

    Args:
        x: features, ``(samples, ..., features)``, or tokens, integers.

    Returns:
        The facts, in float64. Tokens have no scale: their facts are empty.

    Example:
        >>> print(*input_facts([[1.0, 0.0], [3.0, 0.0]]))
        [2. 0.] [1. 0.] 1
    """
    shape = np.shape(x)
    if np.issubdtype(np.asarray(x).dtype, np.integer):
        return InputFacts(np.zeros(0), np.zeros(0), math.prod(shape[1:]))
    rows = _rows(x)
    return InputFacts(rows.mean(axis=0), rows.std(axis=0), math.prod(shape[1:-1]))


def target_facts(y: Any, loss: Loss, sizes: Sequence[int] = ()) -> TargetFacts:
    """Return the targets' form and range, and the loss of the best constant prediction.

    Integers are class labels, unless the loss's spec says that it is not one on classes.

    Args:
        y: targets, ``(samples, ...)`` as labels or ``(samples, ..., outputs)``.
        loss: the loss that they are for.
        sizes: the samples of each batch, in order, where they come from an iterable that nothing shuffles.

    Returns:
        The facts. For K balanced classes the constant prediction's cross-entropy is log K.

    Example:
        >>> from funcnn.losses import softmax_cross_entropy
        >>> facts = target_facts(jnp.array([0, 1, 2, 3]), softmax_cross_entropy)
        >>> facts.form, round(facts.constant_loss, 4)
        ('labels', 1.3863)
    """
    dtype, spec = jnp.result_type(y), loss_spec(loss)
    is_labels = bool(jnp.issubdtype(dtype, jnp.integer)) and spec.targets in (None, "classes")
    lowest, highest = float(np.min(y)), float(np.max(y))
    form: Literal["labels", "one-hot", "probabilities", "values"] = "labels"
    if is_labels and lowest >= 0:
        balance, variance, constant, own = _label_figures(np.asarray(y, np.int64).ravel(), spec)
    else:
        rows = _rows(y)
        form = "labels" if is_labels else _form(rows)
        balance, variance = rows.mean(axis=0), float(rows.var(axis=0).mean())
        constant, own = _losses(rows, spec)
    whole = bool(np.all(np.asarray(y, np.float64) == np.round(np.asarray(y, np.float64))))
    return TargetFacts(
        spec.name, str(dtype), form, lowest, highest, balance, variance, whole, constant, own,
        spec.prediction, spec.targets, _between_batches(np.asarray(y), sizes, is_labels),
    )  # fmt: skip


def _between_batches(y: np.ndarray, sizes: Sequence[int], is_labels: bool) -> float:
    """Return the variance of the batches' means, over the variance of all targets. Labels stand for one-hot rows."""
    if len(sizes) < 2:
        return 0.0
    parts = np.split(y, np.cumsum(sizes)[:-1])
    if is_labels:
        highest = int(y.max()) + 1
        means = np.array([np.bincount(part.ravel(), minlength=highest) / part.size for part in parts])
        second = float((means.T @ sizes).sum() / sum(sizes))
    else:
        means = np.array([_rows(part).mean(axis=0) for part in parts])
        second = float((_rows(y) ** 2).mean(axis=0).sum())
    weights = np.asarray(sizes, np.float64) / sum(sizes)
    mean = weights @ means
    total = second - float((mean**2).sum())
    return float((weights @ (means - mean) ** 2).sum()) / total if total > 0 else 0.0


def _label_figures(labels: np.ndarray, spec: LossSpec) -> tuple[np.ndarray, float, float, float]:
    """Return the shares of the classes, the mean variance of one-hot rows, and the losses."""
    shares = np.bincount(labels) / labels.size
    variance = float((shares * (1 - shares)).mean())
    if len(shares) * max(len(shares), labels.size) <= _MOST_ENTRIES:
        return shares, variance, *_losses(np.eye(len(shares))[labels], spec)
    # A cross-entropy is linear in the targets: their mean has the loss that they have on average.
    return shares, variance, _losses(shares[None, :], spec)[0], 0.0


def _losses(rows: np.ndarray, spec: LossSpec) -> tuple[float, float]:
    """Return the loss of the best constant prediction, and that of the targets themselves."""
    return (math.nan, 0.0) if spec.constant_loss is None else spec.constant_loss(rows)


def _form(rows: np.ndarray) -> Literal["one-hot", "probabilities", "values"]:
    if rows.shape[1] > 1 and rows.min() >= 0 and np.abs(rows.sum(axis=1) - 1).max() < _SUMS_TO_ONE * rows.shape[1]:
        return "one-hot" if set(np.unique(rows)) <= {0.0, 1.0} else "probabilities"
    return "values"


def _rows(array: Any) -> np.ndarray:
    """Return an array as float64 rows of its last axis; ``(samples,)`` is rows of one entry."""
    wide = np.asarray(array, np.float64)
    return wide.reshape(-1, wide.shape[-1] if wide.ndim > 1 else 1)
