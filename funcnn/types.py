"""The types shared by all of funcnn: a layer, a loss, a batch, and a gradient function.

A layer is three pure functions over pytrees and a loss is two. Both are plain tuples: any object with these fields is a
layer or a loss. Each has a ``spec`` that holds its name, its settings, and the facts that other code reads.

Words
-----
primal
    A value of the forward pass.
cotangent
    The gradient of the loss with respect to a primal: ``dy`` belongs to ``y`` and has its shape and dtype.
residuals
    What forward keeps for backward. Backward sees nothing else, like ``bwd`` of ``jax.custom_vjp``.
state
    What forward changes that is not learned by gradient: the running statistics of batch normalization.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, NoReturn, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Params: TypeAlias = PyTree
"""The learned arrays of a layer or model; ``()`` where there are none."""

State: TypeAlias = PyTree
"""The running statistics of a layer or model; ``()`` where there are none."""

Residuals: TypeAlias = PyTree
"""What a forward pass keeps for its backward pass."""

Scalar: TypeAlias = Float[Array, ""]
"""A floating array of shape ``()``."""


@runtime_checkable
class Forward(Protocol):
    """``(params, state, x, *, train, key=None) -> (y, new_state, residuals)``.

    ``x`` has the batch as its first axis and the features as its last. ``train`` is a Python bool, known when JAX
    traces. ``key`` is a random key for the layers that draw random numbers while training, and ``None`` otherwise.
    """

    def __call__(
        self, params: Params, state: State, x: Array, *, train: bool, key: PRNGKeyArray | None = None
    ) -> tuple[Array, State, Residuals]: ...


KernelInit: TypeAlias = Callable[[PRNGKeyArray, tuple[int, ...]], Array]
"""``(key, shape) -> kernel``, the signature of the initializers in ``jax.nn.initializers``."""

Settings: TypeAlias = tuple[tuple[str, Any], ...]
"""The arguments of a constructor as pairs of a name and a hashable value."""


class Structure(NamedTuple):
    """How a layer is made of other layers. Walks over models read it and know no combinator by name.

    It describes layers whose parts run one after another, or whose parts all get the same input and have their outputs
    summed. A layer that computes something else has no structure, and is checked as a whole.

    Fields:
        combine: the combinator with its settings, ``(*parts) -> layer``. It must be memoised: the structure of a layer
            whose forward is not that of ``combine(*parts)`` is ignored.
        parts: the layers that it combines.
        places: what each use of a part is called, in forward order: ``("inner", "shortcut")``.
        trees: the layout of parameters, states and gradients: ``"entries"`` of a tuple, one for each place;
            ``"stacked"``, arrays of the only part with the places as first axis; ``"same"``, those of the only part.
            Forward splits its key by ``jax.random.split``, one for each place; in ``"same"`` the part gets it unsplit.
        container: builds the tuple of the entries from a sequence, such as ``SkipParts._make``.
        adds: whether the parts get the same input and their outputs are summed; otherwise they run one after another.
        ties_last: whether the last part uses the parameters of the first; then the parameters have no entry for it.
        compute_dtype: to which parameters, state and x are cast before the parts run; ``None`` for no cast.
        recomputes: whether backward runs forward again, so that only the arguments are kept.
    """

    combine: Callable[..., "Layer"]
    parts: tuple["Layer", ...]
    places: tuple[str, ...]
    trees: Literal["entries", "stacked", "same"] = "entries"
    container: Callable[[Sequence[Any]], tuple] = tuple
    adds: bool = False
    ties_last: bool = False
    compute_dtype: Any = None
    recomputes: bool = False

    @property
    def layers(self) -> tuple["Layer", ...]:
        """The layer at each place."""
        return self.parts * len(self.places) if self.trees == "stacked" else self.parts


def numbered(word: str, count: int) -> tuple[str, ...]:
    """Return the places ``layers[0]``, ``layers[1]``, and so on for the word ``layers``."""
    return tuple(f"{word}[{number}]" for number in range(count))


class Decoding(NamedTuple):
    """How a layer continues sequences in prediction mode, from the new positions and what it keeps of earlier ones.

    Fields:
        start: ``(params, samples, length) -> cache``, arrays of zeros: the cache of sequences of at most ``length``
            positions before their first one. Raises where the layer takes fewer positions.
        advance: ``(params, cache, x) -> (y, cache)``, with x and y at the next positions, ``(batch, time, features)``.
    """

    start: Callable[[Params, int, int], Any]
    advance: Callable[[Params, Any, Any], tuple[Any, Any]]


def _check_spec(kind: str, name: Any, settings: Any) -> None:
    if not isinstance(name, str) or not name:
        raise TypeError(f"{kind}(name): expected a string, got {name!r}. Use the constructor's name.")
    is_pairs = isinstance(settings, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in settings)
    if not is_pairs:
        raise TypeError(
            f"{kind}(settings): expected a tuple of pairs, got {settings!r}. "
            "Write (('features', 3),), or tuple(settings.items()) for a dictionary."
        )


def _check_structure(structure: Structure) -> None:
    parts, places = len(structure.parts), len(structure.places)
    fits = {"entries": parts == places >= 1, "stacked": parts == 1 <= places, "same": parts == places == 1}
    if structure.trees not in fits:
        raise ValueError(
            f"Structure(trees): expected 'entries', 'stacked' or 'same', got {structure.trees!r}. "
            "Use 'entries' where params is a tuple with an entry for each part."
        )
    if not fits[structure.trees] or len(set(structure.places)) != places:
        raise ValueError(
            f"Structure(places): expected a different name for each of {parts} parts, or for one part that is stacked "
            f"the names of its repetitions, got {structure.places!r}. Write numbered names, ('branch[0]', …)."
        )
    if structure.ties_last and (structure.trees != "entries" or parts < 2):
        raise ValueError(
            f"Structure(ties_last): expected False with trees={structure.trees!r} and {parts} parts, got True. "
            "The last of several parts with entries can use the parameters of the first."
        )


@dataclass(frozen=True)
class LayerSpec:
    """What a layer says of itself. Every field has a default, so that ``Layer(init, forward, backward)`` works.

    Fields:
        name: the constructor's name, ``linear``.
        settings: the constructor's arguments other than layers, as pairs, ``(("in_features", 3), ...)``.
        structure: the layers that it is made of and how they combine; ``None`` for a layer without parts.
        kernel_init: for an activation, the initializer of the kernel in front of it; ``None`` for the default, Xavier.
        units: ``"saturating"`` where f′ goes to 0 on both sides, ``"rectifying"`` where it goes to 0 on one side, so
            that a unit can pass no gradient for any input; ``None`` otherwise.
        steepest: the largest |f′| of a saturating layer.
        slope: ``(residuals, y) -> f′`` of every unit, of y's shape or of that of the gates, where f′ is not what
            backward gives for a cotangent of ones.
        output_range: the lowest and the highest value of the output.
        sums_to_one: whether the output is probabilities of exclusive classes.
        drop_rate: the probability with which an entry is dropped in training.
        mixes_samples: whether in training the output of a sample depends on the other samples of its batch.
        decoding: how ``generate`` continues sequences through the layer without the earlier positions: ``"alone"``
            where in prediction mode the output at a position depends on x at that position alone, else a ``Decoding``;
            ``None`` where all positions are needed.
        attention_weights: ``(residuals) -> weights``, ``(..., queries, keys)``, each row a distribution over the keys.
        is_recurrent: whether each step's output depends on that of the step before, along the axis before the features.

    Raises:
        TypeError, ValueError: a field of another form.
    """

    name: str = "layer"
    settings: Settings = ()
    structure: Structure | None = None
    kernel_init: KernelInit | None = None
    units: Literal["saturating", "rectifying"] | None = None
    steepest: float = 1.0
    slope: Callable[[Residuals, Array], Array] | None = None
    output_range: tuple[float, float] = (-math.inf, math.inf)
    sums_to_one: bool = False
    drop_rate: float = 0.0
    mixes_samples: bool = False
    decoding: Decoding | Literal["alone"] | None = None
    attention_weights: Callable[[Residuals], Array] | None = None
    is_recurrent: bool = False

    def __post_init__(self):
        _check_spec("LayerSpec", self.name, self.settings)
        if self.structure is not None and not isinstance(self.structure, Structure):
            raise TypeError(
                f"LayerSpec(structure): expected Structure(combine, parts, places), got {self.structure!r}. "
                "Leave it out for a layer without parts."
            )
        if self.structure is not None:
            _check_structure(self.structure)
        if self.units not in (None, "saturating", "rectifying"):
            raise ValueError(
                f"LayerSpec(units): expected 'saturating', 'rectifying' or None, got {self.units!r}. "
                "Use None where units neither saturate nor die."
            )
        if self.decoding not in (None, "alone") and not isinstance(self.decoding, Decoding):
            raise ValueError(
                f"LayerSpec(decoding): expected Decoding(start, advance), 'alone' or None, got {self.decoding!r}. "
                "Use None where the layer needs all positions."
            )
        if len(self.output_range) != 2 or not self.output_range[0] <= self.output_range[1]:
            raise ValueError(
                f"LayerSpec(output_range): expected the lowest and the highest value, got {self.output_range!r}. "
                "Use (-math.inf, math.inf) for any value."
            )

    def __hash__(self) -> int:
        # Layers are static arguments of jit: a hash over all parts would cost as much as a small step.
        return hash((self.name, self.settings))

    @property
    def parts(self) -> tuple["Layer", ...]:
        """The layers that it is made of, each of them once."""
        return () if self.structure is None else self.structure.parts


@dataclass(frozen=True)
class LossSpec:
    """What a loss says of itself.

    Fields:
        name: ``softmax_cross_entropy``.
        settings: the constructor's arguments, as pairs.
        prediction: what forward expects from the model.
        targets: ``"classes"`` for one of several exclusive classes, as labels or one-hot rows; ``"binary"`` for
            independent 0 and 1; ``"signs"`` for independent −1 and 1; ``"values"`` for numbers.
        constant_loss: from float64 targets as rows, ``(samples, outputs)``, to the loss of the best prediction that
            does not depend on x, and the loss of a prediction that equals the targets.
    """

    name: str = "loss"
    settings: Settings = ()
    prediction: Literal["values", "logits", "probabilities", "log_probabilities"] | None = None
    targets: Literal["values", "binary", "signs", "classes"] | None = None
    constant_loss: Callable[[np.ndarray], tuple[float, float]] | None = None

    def __post_init__(self):
        _check_spec("LossSpec", self.name, self.settings)


class Layer(NamedTuple):
    """Three pure functions, initialization, forward and backward, and a spec.

    ``str(layer)`` is the constructor call, with its parts indented.

    Fields:
        init: ``(key) -> (params, state)``.
        forward: ``(params, state, x, *, train, key=None) -> (y, new_state, residuals)``.
        backward: ``(residuals, dy) -> (dparams, dx)``: the vector-Jacobian product of forward at the point of the
            residuals. ``dparams`` has the structure, shapes and dtypes of ``params``; ``dx`` is ``None`` where x is not
            floating.
        spec: name, settings, parts and facts.
    """

    init: Callable[[PRNGKeyArray], tuple[Params, State]]
    forward: Forward
    backward: Callable[[Residuals, Array], tuple[Params, Array | None]]
    spec: LayerSpec = LayerSpec()

    def __call__(self, *args: Any, **settings: Any) -> NoReturn:
        """Raise: a layer is three functions, and none of them is the layer."""
        raise TypeError(
            f"{self.spec.name}: expected a call of one of the layer's functions, got a call of the layer. For its "
            "output use predict(layer, params, state, x), or layer.forward(params, state, x, train=False)[0]."
        )

    def __repr__(self) -> str:
        parts = [repr(part) if isinstance(part, Layer) else LayerSpec.name for part in self.spec.parts]
        settings = [f"{name}={setting_text(value)}" for name, value in self.spec.settings]
        if not parts:
            return f"{self.spec.name}({', '.join(settings)})" if settings else self.spec.name
        lines = "".join(f"\n  {line.replace(chr(10), chr(10) + '  ')}," for line in (*parts, *settings))
        return f"{self.spec.name}({lines}\n)"


class Loss(NamedTuple):
    """Two pure functions, a scalar loss and its gradient by the prediction, and a spec.

    Fields:
        forward: ``(prediction, target) -> (loss, residuals)``. The batch mean is taken here, and only here.
        backward: ``(residuals, dloss) -> dprediction``.
        spec: name, settings and facts.
    """

    forward: Callable[[Array, Array], tuple[Scalar, Residuals]]
    backward: Callable[[Residuals, Scalar], Array]
    spec: LossSpec = LossSpec()

    def __call__(self, *args: Any, **settings: Any) -> NoReturn:
        """Raise: a loss is two functions, and neither of them is the loss."""
        raise TypeError(
            f"{self.spec.name}: expected a call of one of the loss's functions, got a call of the loss. For its value "
            "use loss.forward(prediction, target)[0]."
        )

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={setting_text(value)}" for name, value in self.spec.settings)
        return f"{self.spec.name}({settings})" if settings else self.spec.name


def setting_text(value: Any) -> str:
    """Return a setting as text without addresses: functions and dtypes by their names."""
    if isinstance(value, partial):
        given = [
            *map(setting_text, value.args),
            *(f"{name}={setting_text(part)}" for name, part in value.keywords.items()),
        ]
        return f"{setting_text(value.func)}({', '.join(given)})"
    if isinstance(value, np.dtype):
        return value.name
    text = getattr(value, "__name__", None) if callable(value) else None
    if text is not None and getattr(value, "__module__", "").startswith("jax"):
        # The functions that jax.nn.initializers makes are all called init.
        text = value.__qualname__.partition(".<locals>")[0]
    text = repr(value) if text is None else text
    return text if " at 0x" not in text else type(value).__name__


class Batch(NamedTuple):
    """Inputs and their targets, the batch axis first in both.

    Fields:
        x: features, ``(batch, ..., features)``, floating; or tokens, ``(batch, ...)``, integers.
        y: targets, ``(batch, ...)``: values, probabilities or one-hot rows in the dtype of the prediction, or integer
            class labels of the prediction's shape without its last axis.
    """

    x: Array
    y: Array


@runtime_checkable
class GradFn(Protocol):
    """``(params, state, batch, *, key=None) -> ((loss, new_state), grads)``.

    The order of ``jax.value_and_grad(..., has_aux=True)``, so that either can stand in the other's place.
    """

    def __call__(
        self, params: Params, state: State, batch: Batch | tuple[Array, Array], *, key: PRNGKeyArray | None = None
    ) -> tuple[tuple[Scalar, State], Params]: ...
