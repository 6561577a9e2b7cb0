"""The doctor's patients by which its rules were written: ``HEALTHY`` recipes, and ``SICK`` ones.

A sick recipe is a healthy one, its twin, with one thing broken. Whether it is truly sick is measured, not declared:
``doctor`` counts it only where its twin reaches the quality that its data set asks for and it ends clearly worse. The
held-out patients stand in ``unseen_runs``.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.benchmarks.monitored_runs import RATES, Recipe, network, usual_loss

ACTIVATIONS = {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "relu": fnn.relu, "gelu": fnn.gelu}
OPTIONS = {
    "": {},
    "norm": {"normalization": fnn.batch_norm},
    "layer_norm": {"normalization": fnn.layer_norm},
    "skip": {"skip": True},
    "dropout": {"dropout": 0.1},
}


def recipe(data: str, depth: int, activation: str, optimizer: str, option: str = "", seed: int = 0) -> Recipe:
    """A healthy recipe with the usual loss and rate."""
    name = "-".join(filter(None, (data, f"{depth}x{activation}", option, optimizer, str(seed))))
    model = network(data, depth, ACTIVATIONS[activation], **OPTIONS[option])
    return Recipe(name, data, model, usual_loss(data), optimizer, RATES[optimizer], seed)


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
    """Parameters with kernels changed by ``(kernel) -> kernel``: all of them, or the ``only``-th linear layer's."""
    return _each_linear(lambda layer: layer._replace(kernel=change(layer.kernel)), only)


def biases(value: float, *, only: int | None = None):
    """Parameters whose hidden biases are ``value``: all of them, or the ``only``-th linear layer's."""
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
    """Data whose features are changed."""
    return lambda data: data._replace(x=change(data.x))


def targets(change):
    """Data whose targets are changed."""
    return lambda data: data._replace(y=change(data.y))


def raw(load, **options):
    """The data set's features as they are shipped."""
    return lambda data: data._replace(x=load(return_X_y=True, **options)[0])


def uneven(x):
    return x * np.logspace(-2, 3, x.shape[1])


def shuffled(array):
    return np.random.default_rng(7).permutation(array)


def noise(array):
    return np.random.default_rng(8).normal(size=array.shape)


def faint_forward(z):
    """A layer that lets a ten-thousandth through."""
    return 1e-4 * z, ()


def faint_backward(residuals, da):
    return 1e-4 * da


FAINT = fnn.activation_layer(faint_forward, faint_backward, fnn.LayerSpec("faint"))


def sick(kinds, fault: str, twin: Recipe, *, layer: str = "", **changes) -> Recipe:
    """The twin with a fault."""
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    name = f"{kinds[0].replace(' ', '_')}:{fault}:{twin.name}"
    return twin._replace(name=name, kinds=kinds, layer=layer, twin=twin, **changes)


def _vanishing():
    kind, small = "vanishing gradients", kernels(lambda k: 0.05 * k)
    for twin in (
        recipe("digits", 3, "tanh", "momentum"), recipe("iris", 4, "gelu", "momentum"),
        recipe("moons", 3, "tanh", "momentum"), recipe("wine", 3, "relu", "momentum"),
        recipe("xor", 4, "relu", "momentum"), recipe("sine", 3, "gelu", "adam"),
    ):  # fmt: skip
        yield sick(kind, "small_kernels", twin, break_params=small)
    for data, optimizer in (("digits", "sgd"), ("iris", "sgd"), ("moons", "sgd"), ("wine", "sgd"), ("cancer", "sgd")):
        twin = recipe(data, 5, "tanh", optimizer)
        yield sick(kind, "sigmoid", twin, model=network(data, 5, fnn.sigmoid))
    for twin in (
        recipe("digits", 3, "tanh", "momentum"), recipe("moons", 3, "tanh", "momentum"),
        recipe("iris", 2, "tanh", "sgd"), recipe("xor", 2, "relu", "sgd"), recipe("sine", 2, "relu", "adam"),
    ):  # fmt: skip
        layers = twin.model.spec.parts
        broken = fnn.serial(*layers[:2], FAINT, *layers[2:])
        yield sick(kind, "faint_layer", twin, layer="layers[2] faint", model=broken)


def _exploding():
    kind, large = "exploding gradients", kernels(lambda k: 5 * k)
    for twin in (
        recipe("digits", 4, "relu", "sgd"), recipe("iris", 4, "gelu", "momentum"), recipe("moons", 4, "relu", "sgd"),
        recipe("wine", 4, "relu", "sgd"), recipe("xor", 4, "relu", "momentum"), recipe("cancer", 4, "relu", "sgd"),
        recipe("diabetes", 3, "gelu", "adam"), recipe("sine", 3, "gelu", "adam"),
    ):  # fmt: skip
        yield sick(kind, "large_kernels", twin, break_params=large)
    for data in ("digits", "moons", "iris", "wine", "xor"):
        twin = recipe(data, 4, "relu", "momentum")
        broken = kernels(lambda k: 100 * k, only=3)
        yield sick(kind, "one_large_kernel", twin, layer="layers[6] linear", break_params=broken)


def _dead():
    kind = "dead units"
    for twin in (
        recipe("digits", 2, "relu", "adam"), recipe("iris", 1, "relu", "adam"), recipe("moons", 2, "relu", "adam"),
        recipe("spirals", 3, "relu", "adam"), recipe("sine", 2, "relu", "adam"), recipe("xor", 2, "relu", "sgd"),
        recipe("cancer", 2, "relu", "sgd"), recipe("wine", 3, "relu", "momentum"),
    ):  # fmt: skip
        yield sick(kind, "bias_-5", twin, break_params=biases(-5.0))
    for twin in (
        recipe("digits", 4, "relu", "sgd"), recipe("moons", 4, "relu", "sgd"), recipe("xor", 4, "relu", "momentum"),
        recipe("wine", 4, "relu", "sgd"),
    ):  # fmt: skip
        yield sick(kind, "one_bias_-20", twin, layer="layers[3] relu", break_params=biases(-20.0, only=1))
    for twin in (recipe("digits", 1, "relu", "sgd"), recipe("digits", 2, "relu", "adam")):
        yield sick(kind, "negative_kernel", twin, break_params=kernels(lambda k: -jnp.abs(k), only=0))


def _saturation():
    kind, large = "saturation", kernels(lambda k: 30 * k)
    for twin in (
        recipe("digits", 3, "tanh", "momentum"), recipe("moons", 3, "tanh", "momentum"),
        recipe("spirals", 4, "tanh", "adam"), recipe("xor", 3, "tanh", "adam"), recipe("iris", 3, "sigmoid", "adam"),
        recipe("digits", 6, "tanh", "adam", "skip"), recipe("digits", 5, "tanh", "sgd"),
        recipe("digits", 2, "sigmoid", "adam"),
        recipe("digits", 3, "tanh", "adam"), recipe("digits", 4, "tanh", "momentum"),
        recipe("cancer", 2, "sigmoid", "adam"),
    ):  # fmt: skip
        yield sick(kind, "large_kernels", twin, break_params=large)
    for data in ("digits", "moons", "iris", "wine", "xor"):
        broken = biases(12.0, only=1)
        yield sick(
            kind, "one_large_bias", recipe(data, 3, "tanh", "momentum"), layer="layers[3] tanh", break_params=broken
        )


def _rates():
    twins = [
        recipe("digits", 2, "relu", "adam"), recipe("digits", 3, "tanh", "momentum"),
        recipe("wine", 2, "sigmoid", "adam"), recipe("cancer", 2, "relu", "sgd"), recipe("iris", 2, "tanh", "sgd"),
        recipe("iris", 4, "gelu", "momentum"), recipe("diabetes", 3, "gelu", "adam"),
        recipe("moons", 3, "tanh", "momentum"), recipe("spirals", 3, "relu", "adam"),
        recipe("xor", 3, "tanh", "adam"), recipe("sine", 2, "relu", "adam"), recipe("wine", 3, "relu", "momentum"),
        recipe("spirals", 4, "tanh", "adam"),
    ]  # fmt: skip
    for twin in twins:
        yield sick("learning rate too high", "rate_x100", twin, rate=100 * twin.rate)
        yield sick("learning rate too low", "rate_/1000", twin, rate=twin.rate / 1000)


def _unscaled():
    from sklearn import datasets

    kind = "unscaled input"
    shipped = {"wine": raw(datasets.load_wine), "cancer": raw(datasets.load_breast_cancer)}
    for data, depth, activation, optimizer in (
        ("wine", 1, "tanh", "sgd"), ("wine", 2, "sigmoid", "adam"), ("wine", 3, "relu", "momentum"),
        ("cancer", 2, "relu", "sgd"), ("cancer", 1, "sigmoid", "momentum"),
    ):  # fmt: skip
        yield sick(kind, "raw", recipe(data, depth, activation, optimizer), break_data=shipped[data])
    for fault, change, twins in (
        ("x1000", lambda x: 1000 * x, (("moons", 3, "tanh", "momentum"), ("xor", 2, "relu", "sgd"))),
        ("x0.001", lambda x: x / 1000, (("iris", 2, "tanh", "sgd"), ("spirals", 3, "relu", "adam"))),
        ("plus_1000", lambda x: x + 1000, (("sine", 2, "relu", "adam"), ("cancer", 2, "sigmoid", "adam"))),
        ("0..255", lambda x: 255 * x, (("digits", 1, "relu", "sgd"), ("digits", 3, "tanh", "momentum"))),
        ("mixed", uneven, (("iris", 2, "tanh", "sgd"), ("xor", 3, "tanh", "adam"))),
        ("plus_50", lambda x: x + 50, (("iris", 2, "tanh", "sgd"), ("xor", 1, "tanh", "adam"))),
    ):  # fmt: skip
        for twin in twins:
            yield sick(kind, fault, recipe(*twin), break_data=features(change))


def _no_fall():
    kind = "loss doesn't fall"
    for twin in (
        recipe("digits", 1, "relu", "sgd"), recipe("moons", 2, "relu", "adam"), recipe("spirals", 3, "relu", "adam"),
        recipe("xor", 2, "relu", "sgd"), recipe("sine", 2, "relu", "adam"), recipe("cancer", 1, "sigmoid", "momentum"),
        recipe("moons", 3, "tanh", "momentum"),
    ):  # fmt: skip
        yield sick(kind, "shuffled_targets", twin, break_data=targets(shuffled))
    for twin in (
        recipe("moons", 3, "relu", "sgd", "norm"),
        recipe("xor", 1, "tanh", "adam"),
        recipe("digits", 1, "relu", "sgd"),
    ):
        yield sick(kind, "noise_for_features", twin, break_data=features(noise))
    for twin in (
        recipe("digits", 2, "relu", "adam"),
        recipe("iris", 2, "tanh", "sgd"),
        recipe("sine", 1, "tanh", "adam"),
    ):
        yield sick(kind, "gradients_lost", twin, is_frozen=True)


def _labels():
    kind = "labels that don't fit the loss"
    for data, depth, activation, optimizer in (
        ("sine", 1, "tanh", "adam"), ("sine", 3, "gelu", "adam"), ("diabetes", 1, "tanh", "adam"),
    ):  # fmt: skip
        twin = recipe(data, depth, activation, optimizer)
        for name, output in (("sigmoid", fnn.sigmoid), ("relu", fnn.relu), ("softplus", fnn.softplus)):
            model = network(data, depth, ACTIVATIONS[activation], output)
            yield sick(kind, f"{name}_output", twin, model=model)
    twin = recipe("sine", 1, "tanh", "adam")
    yield sick(
        kind, "tanh_output_targets_x5", twin, model=network("sine", 1, fnn.tanh, fnn.tanh),
        break_data=targets(lambda y: 5 * y),
    )  # fmt: skip
    for data, depth, activation, optimizer in (
        ("moons", 2, "relu", "adam"), ("xor", 1, "tanh", "adam"), ("cancer", 2, "relu", "sgd"),
    ):  # fmt: skip
        twin = recipe(data, depth, activation, optimizer)
        doubled = network(data, depth, ACTIVATIONS[activation], fnn.sigmoid)
        yield sick(kind, "sigmoid_twice", twin, model=doubled)
        single = network(data, depth, ACTIVATIONS[activation], fnn.softmax)
        yield sick(kind, "softmax_of_one", twin, model=single, loss=fnn.mean_squared_error)
    twin = recipe("moons", 2, "relu", "adam")
    yield sick(
        kind, "minus_one_and_one", twin, model=network("moons", 2, fnn.relu, fnn.sigmoid),
        break_data=targets(lambda y: 2 * y - 1),
    )  # fmt: skip
    for data, depth, activation, optimizer in (("digits", 2, "sigmoid", "adam"), ("digits", 1, "relu", "sgd")):
        doubled = network(data, depth, ACTIVATIONS[activation], fnn.softmax)
        yield sick(kind, "softmax_twice", recipe(data, depth, activation, optimizer), model=doubled)
    for load in ("diabetes",):
        raw_targets = targets(lambda y: 77 * y + 152)
        yield sick(kind, "raw_targets", recipe(load, 1, "tanh", "adam"), break_data=raw_targets)


SICK = [
    patient
    for faults in (_vanishing, _exploding, _dead, _saturation, _rates, _unscaled, _no_fall, _labels)
    for patient in faults()
]
_specified = [recipe(*specification) for specification in HEALTHY_SPECIFICATIONS]
HEALTHY = list({patient.name: patient for patient in (*_specified, *(patient.twin for patient in SICK))}.values())
"""The specified recipes and the twins of the sick ones."""
