"""The training runs with which the monitor's rules were written: ``HEALTHY`` and ``FAULTY`` cases.

A faulty case is a healthy one, its twin, with one fault. ``doctor`` counts it only if its twin reaches the quality of
its data set and it ends clearly worse. ``held_out_runs`` has the held-out cases.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.benchmarks.monitored_runs import RATES, TrainingCase, network, usual_loss

ACTIVATIONS = {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "relu": fnn.relu, "gelu": fnn.gelu}
OPTIONS = {
    "": {},
    "norm": {"normalization": fnn.batch_norm},
    "layer_norm": {"normalization": fnn.layer_norm},
    "skip": {"skip": True},
    "dropout": {"dropout": 0.1},
}


def case(data: str, depth: int, activation: str, optimizer: str, option: str = "", seed: int = 0) -> TrainingCase:
    """Return a healthy case with the usual loss and rate."""
    name = "-".join(filter(None, (data, f"{depth}x{activation}", option, optimizer, str(seed))))
    model = network(data, depth, ACTIVATIONS[activation], **OPTIONS[option])
    return TrainingCase(name, data, model, usual_loss(data), optimizer, RATES[optimizer], seed)


HEALTHY_SPECIFICATIONS = [
    ("digits", 1, "relu", "sgd"), ("digits", 2, "relu", "adam"), ("digits", 3, "tanh", "momentum"),
    ("digits", 2, "sigmoid", "adam"), ("digits", 4, "relu", "adam", "norm"), ("digits", 5, "gelu", "adam", "skip"),
    ("digits", 2, "relu", "momentum", "dropout"), ("digits", 6, "tanh", "adam", "norm"),
    ("wine", 1, "tanh", "sgd"), ("wine", 2, "sigmoid", "adam"), ("wine", 3, "relu", "momentum"),
    ("wine", 5, "tanh", "adam"), ("wine", 2, "gelu", "sgd", "skip"), ("wine", 2, "relu", "adam", "dropout"),
    ("cancer", 1, "sigmoid", "momentum"), ("cancer", 2, "relu", "sgd"), ("cancer", 3, "gelu", "adam"),
    ("cancer", 6, "relu", "adam", "norm"), ("cancer", 4, "tanh", "sgd", "skip"),
    ("iris", 1, "relu", "adam"), ("iris", 2, "tanh", "sgd"), ("iris", 3, "sigmoid", "adam"),
    ("iris", 4, "gelu", "momentum"), ("iris", 2, "relu", "sgd", "norm"), ("iris", 6, "relu", "adam", "skip"),
    ("diabetes", 1, "tanh", "adam"), ("diabetes", 2, "relu", "momentum"), ("diabetes", 3, "gelu", "adam"),
    ("moons", 2, "relu", "adam"), ("moons", 3, "tanh", "momentum"), ("cancer", 2, "sigmoid", "adam"),
    ("moons", 4, "gelu", "adam", "skip"), ("moons", 5, "tanh", "adam"), ("moons", 3, "relu", "sgd", "norm"),
    ("spirals", 3, "relu", "adam"), ("spirals", 4, "tanh", "adam"), ("spirals", 3, "gelu", "adam", "skip"),
    ("spirals", 4, "relu", "momentum", "norm"),
    ("xor", 1, "tanh", "adam"), ("xor", 2, "relu", "sgd"), ("xor", 3, "tanh", "adam"),
    ("xor", 4, "relu", "momentum"), ("xor", 2, "gelu", "adam", "layer_norm"),
    ("sine", 1, "tanh", "adam"), ("sine", 2, "relu", "adam"), ("sine", 3, "gelu", "adam"),
    ("sine", 2, "tanh", "adam", "skip"),
    ("noisy_sine", 2, "relu", "adam"), ("noisy_sine", 2, "tanh", "momentum"), ("noisy_sine", 4, "gelu", "adam", "skip"),
    ("noisy_xor", 2, "relu", "adam"), ("noisy_xor", 3, "tanh", "adam"), ("noisy_moons", 1, "tanh", "adam"),
    ("noisy_moons", 3, "relu", "adam"),
]  # fmt: skip


# Faults


def kernels(change, *, only: int | None = None):
    """Return a change of parameters that maps ``(kernel) -> kernel`` on all linear layers, or on the ``only``-th."""
    return _each_linear(lambda layer: layer._replace(kernel=change(layer.kernel)), only)


def biases(value: float, *, only: int | None = None):
    """Return a change of parameters that sets the biases of all hidden linear layers, or of the ``only``-th."""
    return _each_linear(lambda layer: layer._replace(bias=jnp.full_like(layer.bias, value)), only, but_last=True)


def _each_linear(change, only, but_last=False):
    def is_linear(node):
        return isinstance(node, fnn.layers.linear.LinearParams)

    def changed(params):
        nodes, structure = jax.tree.flatten(params, is_leaf=is_linear)
        places = [place for place, node in enumerate(nodes) if is_linear(node)]
        places = places[: len(places) - but_last] if only is None else [places[only]]
        return jax.tree.unflatten(
            structure, [change(node) if place in places else node for place, node in enumerate(nodes)]
        )

    return changed


def features(change):
    """Return a change of the data's features."""
    return lambda data: data._replace(x=change(data.x))


def targets(change):
    """Return a change of the data's targets."""
    return lambda data: data._replace(y=change(data.y))


def raw(load, **options):
    """Return a change to the data set's features as they are shipped."""
    return lambda data: data._replace(x=load(return_X_y=True, **options)[0])


def uneven(x):
    return x * np.logspace(-2, 3, x.shape[1])


def shuffled(array):
    return np.random.default_rng(7).permutation(array)


def noise(array):
    return np.random.default_rng(8).normal(size=array.shape)


def faint_forward(z):
    """Return a ten-thousandth of the input."""
    return 1e-4 * z, ()


def faint_backward(residuals, da):
    return 1e-4 * da


FAINT = fnn.activation_layer(faint_forward, faint_backward, fnn.LayerSpec("faint"))


def faulty(kinds, fault: str, twin: TrainingCase, *, layer: str = "", **changes) -> TrainingCase:
    """Return the twin with a fault."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    name = f"{kinds[0].replace(' ', '_')}:{fault}:{twin.name}"
    return twin._replace(name=name, kinds=kinds, layer=layer, twin=twin, **changes)


def _vanishing():
    kind, small = "vanishing gradients", kernels(lambda k: 0.05 * k)
    for twin in (
        case("digits", 3, "tanh", "momentum"), case("iris", 4, "gelu", "momentum"),
        case("moons", 3, "tanh", "momentum"), case("wine", 3, "relu", "momentum"),
        case("xor", 4, "relu", "momentum"), case("sine", 3, "gelu", "adam"),
    ):  # fmt: skip
        yield faulty(kind, "small_kernels", twin, break_params=small)
    for data, optimizer in (("digits", "sgd"), ("iris", "sgd"), ("moons", "sgd"), ("wine", "sgd"), ("cancer", "sgd")):
        twin = case(data, 5, "tanh", optimizer)
        yield faulty(kind, "sigmoid", twin, model=network(data, 5, fnn.sigmoid))
    for twin in (
        case("digits", 3, "tanh", "momentum"), case("moons", 3, "tanh", "momentum"),
        case("iris", 2, "tanh", "sgd"), case("xor", 2, "relu", "sgd"), case("sine", 2, "relu", "adam"),
    ):  # fmt: skip
        layers = twin.model.spec.parts
        broken = fnn.serial(*layers[:2], FAINT, *layers[2:])
        yield faulty(kind, "faint_layer", twin, layer="layers[2] faint", model=broken)


def _exploding():
    kind, large = "exploding gradients", kernels(lambda k: 5 * k)
    for twin in (
        case("digits", 4, "relu", "sgd"), case("iris", 4, "gelu", "momentum"), case("moons", 4, "relu", "sgd"),
        case("wine", 4, "relu", "sgd"), case("xor", 4, "relu", "momentum"), case("cancer", 4, "relu", "sgd"),
        case("diabetes", 3, "gelu", "adam"), case("sine", 3, "gelu", "adam"),
    ):  # fmt: skip
        yield faulty(kind, "large_kernels", twin, break_params=large)
    for data in ("digits", "moons", "iris", "wine", "xor"):
        twin = case(data, 4, "relu", "momentum")
        broken = kernels(lambda k: 100 * k, only=3)
        yield faulty(kind, "one_large_kernel", twin, layer="layers[6] linear", break_params=broken)


def _dead():
    kind = "dead units"
    for twin in (
        case("digits", 2, "relu", "adam"), case("iris", 1, "relu", "adam"), case("moons", 2, "relu", "adam"),
        case("spirals", 3, "relu", "adam"), case("sine", 2, "relu", "adam"), case("xor", 2, "relu", "sgd"),
        case("cancer", 2, "relu", "sgd"), case("wine", 3, "relu", "momentum"),
    ):  # fmt: skip
        yield faulty(kind, "bias_-5", twin, break_params=biases(-5.0))
    for twin in (
        case("digits", 4, "relu", "sgd"), case("moons", 4, "relu", "sgd"), case("xor", 4, "relu", "momentum"),
        case("wine", 4, "relu", "sgd"),
    ):  # fmt: skip
        yield faulty(kind, "one_bias_-20", twin, layer="layers[3] relu", break_params=biases(-20.0, only=1))
    for twin in (case("digits", 1, "relu", "sgd"), case("digits", 2, "relu", "adam")):
        yield faulty(kind, "negative_kernel", twin, break_params=kernels(lambda k: -jnp.abs(k), only=0))


def _saturation():
    kind, large = "saturation", kernels(lambda k: 30 * k)
    for twin in (
        case("digits", 3, "tanh", "momentum"), case("moons", 3, "tanh", "momentum"),
        case("spirals", 4, "tanh", "adam"), case("xor", 3, "tanh", "adam"), case("iris", 3, "sigmoid", "adam"),
        case("digits", 6, "tanh", "adam", "skip"), case("digits", 5, "tanh", "sgd"),
        case("digits", 2, "sigmoid", "adam"),
        case("digits", 3, "tanh", "adam"), case("digits", 4, "tanh", "momentum"),
        case("cancer", 2, "sigmoid", "adam"),
    ):  # fmt: skip
        yield faulty(kind, "large_kernels", twin, break_params=large)
    for data in ("digits", "moons", "iris", "wine", "xor"):
        broken = biases(12.0, only=1)
        yield faulty(
            kind, "one_large_bias", case(data, 3, "tanh", "momentum"), layer="layers[3] tanh", break_params=broken
        )


def _rates():
    twins = [
        case("digits", 2, "relu", "adam"), case("digits", 3, "tanh", "momentum"),
        case("wine", 2, "sigmoid", "adam"), case("cancer", 2, "relu", "sgd"), case("iris", 2, "tanh", "sgd"),
        case("iris", 4, "gelu", "momentum"), case("diabetes", 3, "gelu", "adam"),
        case("moons", 3, "tanh", "momentum"), case("spirals", 3, "relu", "adam"),
        case("xor", 3, "tanh", "adam"), case("sine", 2, "relu", "adam"), case("wine", 3, "relu", "momentum"),
        case("spirals", 4, "tanh", "adam"),
    ]  # fmt: skip
    for twin in twins:
        yield faulty("learning rate too high", "rate_x100", twin, rate=100 * twin.rate)
        yield faulty("learning rate too low", "rate_/1000", twin, rate=twin.rate / 1000)


def _unscaled():
    from sklearn import datasets

    kind = "unscaled input"
    shipped = {"wine": raw(datasets.load_wine), "cancer": raw(datasets.load_breast_cancer)}
    for data, depth, activation, optimizer in (
        ("wine", 1, "tanh", "sgd"), ("wine", 2, "sigmoid", "adam"), ("wine", 3, "relu", "momentum"),
        ("cancer", 2, "relu", "sgd"), ("cancer", 1, "sigmoid", "momentum"),
    ):  # fmt: skip
        yield faulty(kind, "raw", case(data, depth, activation, optimizer), break_data=shipped[data])
    for fault, change, twins in (
        ("x1000", lambda x: 1000 * x, (("moons", 3, "tanh", "momentum"), ("xor", 2, "relu", "sgd"))),
        ("x0.001", lambda x: x / 1000, (("iris", 2, "tanh", "sgd"), ("spirals", 3, "relu", "adam"))),
        ("plus_1000", lambda x: x + 1000, (("sine", 2, "relu", "adam"), ("cancer", 2, "sigmoid", "adam"))),
        ("0..255", lambda x: 255 * x, (("digits", 1, "relu", "sgd"), ("digits", 3, "tanh", "momentum"))),
        ("mixed", uneven, (("iris", 2, "tanh", "sgd"), ("xor", 3, "tanh", "adam"))),
        ("plus_50", lambda x: x + 50, (("iris", 2, "tanh", "sgd"), ("xor", 1, "tanh", "adam"))),
    ):  # fmt: skip
        for twin in twins:
            yield faulty(kind, fault, case(*twin), break_data=features(change))


def _no_fall():
    kind = "loss doesn't fall"
    for twin in (
        case("digits", 1, "relu", "sgd"), case("moons", 2, "relu", "adam"), case("spirals", 3, "relu", "adam"),
        case("xor", 2, "relu", "sgd"), case("sine", 2, "relu", "adam"), case("cancer", 1, "sigmoid", "momentum"),
        case("moons", 3, "tanh", "momentum"),
    ):  # fmt: skip
        yield faulty(kind, "shuffled_targets", twin, break_data=targets(shuffled))
    for twin in (
        case("moons", 3, "relu", "sgd", "norm"),
        case("xor", 1, "tanh", "adam"),
        case("digits", 1, "relu", "sgd"),
    ):
        yield faulty(kind, "noise_for_features", twin, break_data=features(noise))
    for twin in (
        case("digits", 2, "relu", "adam"),
        case("iris", 2, "tanh", "sgd"),
        case("sine", 1, "tanh", "adam"),
    ):
        yield faulty(kind, "gradients_lost", twin, is_frozen=True)


def _labels():
    kind = "labels that don't fit the loss"
    for data, depth, activation, optimizer in (
        ("sine", 1, "tanh", "adam"), ("sine", 3, "gelu", "adam"), ("diabetes", 1, "tanh", "adam"),
    ):  # fmt: skip
        twin = case(data, depth, activation, optimizer)
        for name, output in (("sigmoid", fnn.sigmoid), ("relu", fnn.relu), ("softplus", fnn.softplus)):
            model = network(data, depth, ACTIVATIONS[activation], output)
            yield faulty(kind, f"{name}_output", twin, model=model)
    twin = case("sine", 1, "tanh", "adam")
    yield faulty(
        kind, "tanh_output_targets_x5", twin, model=network("sine", 1, fnn.tanh, fnn.tanh),
        break_data=targets(lambda y: 5 * y),
    )  # fmt: skip
    for data, depth, activation, optimizer in (
        ("moons", 2, "relu", "adam"), ("xor", 1, "tanh", "adam"), ("cancer", 2, "relu", "sgd"),
    ):  # fmt: skip
        twin = case(data, depth, activation, optimizer)
        doubled = network(data, depth, ACTIVATIONS[activation], fnn.sigmoid)
        yield faulty(kind, "sigmoid_twice", twin, model=doubled)
        single = network(data, depth, ACTIVATIONS[activation], fnn.softmax)
        yield faulty(kind, "softmax_of_one", twin, model=single, loss=fnn.mean_squared_error)
    twin = case("moons", 2, "relu", "adam")
    yield faulty(
        kind, "minus_one_and_one", twin, model=network("moons", 2, fnn.relu, fnn.sigmoid),
        break_data=targets(lambda y: 2 * y - 1),
    )  # fmt: skip
    for data, depth, activation, optimizer in (("digits", 2, "sigmoid", "adam"), ("digits", 1, "relu", "sgd")):
        doubled = network(data, depth, ACTIVATIONS[activation], fnn.softmax)
        yield faulty(kind, "softmax_twice", case(data, depth, activation, optimizer), model=doubled)
    for load in ("diabetes",):
        raw_targets = targets(lambda y: 77 * y + 152)
        yield faulty(kind, "raw_targets", case(load, 1, "tanh", "adam"), break_data=raw_targets)


FAULTY = [
    case
    for faults in (_vanishing, _exploding, _dead, _saturation, _rates, _unscaled, _no_fall, _labels)
    for case in faults()
]
_specified = [case(*specification) for specification in HEALTHY_SPECIFICATIONS]
HEALTHY = list({case.name: case for case in (*_specified, *(case.twin for case in FAULTY))}.values())
"""The specified cases and the twins of the faulty ones."""
