"""Held-out training runs for the monitor, written after every threshold was fixed and never used to change one.

Their seeds, networks and sizes of faults differ from those of ``faulty_runs``, with which the rules were written. The
kinds of faults are the same, and their authors knew the rules: the runs are held out, and not blind.
"""

import jax.numpy as jnp
from sklearn import datasets

import funcnn as fnn
from experiments.benchmarks.faulty_runs import (
    ACTIVATIONS,
    FAINT,
    HEALTHY_SPECIFICATIONS,
    biases,
    case,
    faulty,
    features,
    kernels,
    noise,
    raw,
    shuffled,
    targets,
    uneven,
)
from experiments.benchmarks.monitored_runs import TrainingCase, network

SEED = 2
OTHER_SPECIFICATIONS = [
    ("digits", 3, "relu", "sgd"), ("digits", 4, "tanh", "sgd", "norm"), ("wine", 4, "gelu", "adam"),
    ("wine", 3, "tanh", "sgd", "layer_norm"), ("cancer", 5, "gelu", "momentum", "skip"), ("cancer", 2, "tanh", "adam"),
    ("iris", 5, "relu", "momentum", "norm"), ("iris", 3, "gelu", "sgd"), ("moons", 1, "relu", "adam"),
    ("xor", 5, "gelu", "adam", "skip"), ("sine", 4, "tanh", "adam"), ("diabetes", 4, "relu", "adam", "norm"),
    ("noisy_moons", 4, "tanh", "momentum"), ("noisy_sine", 3, "relu", "momentum", "layer_norm"),
]  # fmt: skip


def _twins(*specifications) -> list[TrainingCase]:
    return [case(*specification, seed=SEED) for specification in specifications]


def _signals():
    small, large = kernels(lambda k: 0.03 * k), kernels(lambda k: 6 * k)
    deep = _twins(
        ("digits", 4, "relu", "momentum"), ("moons", 4, "relu", "momentum"), ("iris", 4, "relu", "momentum"),
        ("wine", 4, "relu", "momentum"), ("cancer", 4, "relu", "sgd"),
    )  # fmt: skip
    for twin in deep:
        yield faulty("vanishing gradients", "small_kernels", twin, break_params=small)
        yield faulty("exploding gradients", "large_kernels", twin, break_params=large)
    for twin in _twins(("digits", 6, "tanh", "sgd"), ("moons", 6, "tanh", "sgd")):
        yield faulty("vanishing gradients", "sigmoid", twin, model=network(twin.data, 6, fnn.sigmoid))
    for twin in _twins(
        ("digits", 4, "relu", "sgd"), ("wine", 4, "relu", "sgd"), ("iris", 3, "tanh", "momentum"),
        ("moons", 5, "tanh", "sgd"), ("cancer", 5, "tanh", "sgd"),
    ):  # fmt: skip
        layers = twin.model.spec.parts
        broken = fnn.serial(*layers[:4], FAINT, *layers[4:])
        yield faulty("vanishing gradients", "faint_layer", twin, layer="layers[4] faint", model=broken)
    for twin in _twins(
        ("digits", 4, "relu", "sgd"), ("wine", 4, "relu", "sgd"), ("moons", 4, "relu", "sgd"),
        ("iris", 4, "gelu", "momentum"), ("cancer", 4, "relu", "sgd"),
    ):  # fmt: skip
        broken = kernels(lambda k: 300 * k, only=2)
        yield faulty("exploding gradients", "one_large_kernel", twin, layer="layers[4] linear", break_params=broken)


def _units():
    for twin in _twins(
        ("iris", 4, "relu", "momentum"), ("moons", 4, "relu", "sgd"), ("digits", 4, "relu", "momentum"),
        ("wine", 4, "relu", "sgd"), ("digits", 2, "relu", "momentum", "dropout"), ("cancer", 4, "relu", "sgd"),
        ("xor", 4, "relu", "momentum"),
    ):  # fmt: skip
        yield faulty("dead units", "bias_-8", twin, break_params=biases(-8.0))
    for twin in _twins(
        ("digits", 4, "relu", "momentum"), ("moons", 4, "relu", "momentum"), ("iris", 4, "relu", "momentum")
    ):
        broken = biases(-30.0, only=2)
        yield faulty("dead units", "one_bias_-30", twin, layer="layers[5] relu", break_params=broken)
    for twin in _twins(("digits", 4, "relu", "sgd"), ("digits", 3, "relu", "sgd")):
        yield faulty("dead units", "negative_kernel", twin, break_params=kernels(lambda k: -jnp.abs(k), only=0))
    for twin in _twins(
        ("moons", 5, "tanh", "adam"), ("wine", 5, "tanh", "adam"), ("digits", 6, "tanh", "sgd"),
        ("xor", 3, "tanh", "momentum"), ("spirals", 4, "tanh", "adam"), ("digits", 2, "tanh", "adam"),
    ):  # fmt: skip
        yield faulty("saturation", "large_kernels", twin, break_params=kernels(lambda k: 50 * k))
    for twin in _twins(
        ("moons", 5, "tanh", "sgd"), ("iris", 5, "tanh", "sgd"), ("wine", 5, "tanh", "sgd"),
        ("digits", 5, "tanh", "sgd"), ("xor", 3, "tanh", "momentum"), ("digits", 3, "tanh", "momentum"),
    ):  # fmt: skip
        yield faulty("saturation", "one_large_bias", twin, layer="layers[5] tanh", break_params=biases(-15.0, only=2))


def _rates():
    for twin in _twins(
        ("iris", 1, "relu", "adam"), ("wine", 1, "tanh", "sgd"), ("cancer", 3, "gelu", "adam"),
        ("digits", 2, "sigmoid", "adam"), ("moons", 2, "relu", "adam"), ("xor", 4, "relu", "momentum"),
        ("sine", 1, "tanh", "adam"), ("digits", 4, "relu", "adam", "norm"), ("spirals", 3, "gelu", "adam", "skip"),
        ("xor", 1, "tanh", "adam"), ("digits", 1, "relu", "sgd"), ("sine", 3, "gelu", "adam"),
        ("spirals", 3, "relu", "adam"), ("wine", 3, "relu", "momentum"),
    ):  # fmt: skip
        yield faulty("learning rate too high", "rate_x50", twin, rate=50 * twin.rate)
        yield faulty("learning rate too low", "rate_/500", twin, rate=twin.rate / 500)


def _unscaled():
    shipped = {"wine": raw(datasets.load_wine), "cancer": raw(datasets.load_breast_cancer)}
    for twin in _twins(
        ("wine", 5, "tanh", "adam"), ("wine", 2, "relu", "adam", "dropout"), ("cancer", 3, "gelu", "adam"),
        ("cancer", 4, "relu", "sgd"), ("cancer", 2, "tanh", "adam"),
    ):  # fmt: skip
        yield faulty("unscaled input", "raw", twin, break_data=shipped[twin.data])
    for fault, change, twins in (
        ("x300", lambda x: 300 * x, _twins(("iris", 1, "relu", "adam"), ("spirals", 4, "tanh", "adam"))),
        ("x0.01", lambda x: x / 100, _twins(("wine", 1, "tanh", "sgd"), ("xor", 2, "relu", "sgd"))),
        ("plus_200", lambda x: x + 200, _twins(("iris", 4, "gelu", "momentum"), ("sine", 1, "tanh", "adam"))),
        ("0..255", lambda x: 255 * x, _twins(("digits", 3, "relu", "sgd"), ("digits", 2, "sigmoid", "adam"))),
        ("uneven", uneven, _twins(("moons", 3, "tanh", "momentum"), ("wine", 3, "relu", "momentum"))),
    ):
        for twin in twins:
            yield faulty("unscaled input", fault, twin, break_data=features(change))


def _no_fall():
    kind = "loss doesn't fall"
    for twin in _twins(
        ("noisy_xor", 2, "relu", "adam"), ("moons", 4, "gelu", "adam", "skip"), ("spirals", 4, "tanh", "adam"),
        ("xor", 3, "tanh", "adam"), ("sine", 1, "tanh", "adam"), ("digits", 3, "relu", "sgd"),
        ("noisy_moons", 1, "tanh", "adam"),
    ):  # fmt: skip
        yield faulty(kind, "shuffled_targets", twin, break_data=targets(shuffled))
    for twin in _twins(("spirals", 3, "relu", "adam"), ("moons", 2, "relu", "adam"), ("sine", 3, "gelu", "adam")):
        yield faulty(kind, "noise_for_features", twin, break_data=features(noise))
    for twin in _twins(("wine", 1, "tanh", "sgd"), ("cancer", 2, "relu", "sgd"), ("xor", 3, "tanh", "adam")):
        yield faulty(kind, "gradients_lost", twin, is_frozen=True)


def _labels():
    kind = "labels that don't fit the loss"
    for specification in (("noisy_sine", 2, "relu", "adam"), ("diabetes", 2, "relu", "momentum")):
        (twin,) = _twins(specification)
        for name, output in (("sigmoid", fnn.sigmoid), ("relu", fnn.relu), ("tanh", fnn.tanh)):
            model = network(twin.data, 2, fnn.relu, output)
            broken = targets(lambda y: 3 * y) if name == "tanh" else None
            yield faulty(kind, f"{name}_output", twin, model=model, break_data=broken)
    for specification in (("spirals", 3, "relu", "adam"), ("xor", 3, "tanh", "adam")):
        data, depth, activation, _ = specification
        (twin,) = _twins(specification)
        twice = network(data, depth, ACTIVATIONS[activation], fnn.sigmoid)
        yield faulty(kind, "sigmoid_twice", twin, model=twice)
        of_one = network(data, depth, ACTIVATIONS[activation], fnn.softmax)
        yield faulty(kind, "softmax_of_one", twin, model=of_one, loss=fnn.binary_cross_entropy)
    for twin in _twins(("diabetes", 2, "relu", "momentum"), ("diabetes", 1, "tanh", "adam")):
        yield faulty(kind, "raw_targets", twin, break_data=targets(lambda y: 77 * y + 152))
    (twin,) = _twins(("xor", 2, "relu", "sgd"))
    minus = targets(lambda y: 2 * y - 1)
    yield faulty(kind, "minus_one_and_one", twin, model=network("xor", 2, fnn.relu, fnn.sigmoid), break_data=minus)


HELD_OUT_FAULTY = [case for faults in (_signals, _units, _rates, _unscaled, _no_fall, _labels) for case in faults()]
_specified = _twins(*HEALTHY_SPECIFICATIONS, *OTHER_SPECIFICATIONS)
HELD_OUT_HEALTHY = list({case.name: case for case in (*_specified, *(case.twin for case in HELD_OUT_FAULTY))}.values())
