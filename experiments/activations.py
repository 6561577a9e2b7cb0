"""Activation functions: curves, a network without them, the zero centre, and computing time."""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    Table,
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, lines
from experiments.harness.runner import run_command_line
from experiments.shared.data import digits

HERE = {"section": Section.ACTIVATIONS}
EXACT = HERE | {"statistic": "exact"}
TRAINED = HERE | {"seeds": 40, "quick_seeds": 8}
TIMED = HERE | {"statistic": "median", "seeds": 300, "quick_seeds": 60}

RANGES = Claim(
    **EXACT, name="ranges", at_most=0,
    sentence="Sigmoid lies strictly in (0, 1), tanh in (−1, 1), ReLU in [0, ∞).",
    quantity="outputs outside, of 100,001 inputs in [−5, 5] each",
)  # fmt: skip
RANGES_COMPUTED = Claim(
    **EXACT, name="ranges-computed", at_most=0,
    sentence="So they do on a computer, however large the input.",
    quantity="outputs of sigmoid and tanh that are exactly 0, 1 or −1, of 100,001 inputs in [−100, 100] each",
)  # fmt: skip
SATURATION = Claim(
    **EXACT, name="saturation", at_most=0.01,
    sentence="Sigmoid and tanh saturate: beyond |z| = 5 their slope is under a hundredth.",
    quantity="largest derivative of the two for 5 ≤ |z| ≤ 100",
)  # fmt: skip
RELU_SLOPE = Claim(
    **EXACT, name="relu-slope", at_least=1, at_most=1,
    sentence="ReLU never saturates for positive inputs: its slope stays one.",
    quantity="least derivative for 10⁻³⁰ ≤ z ≤ 10³⁰",
)  # fmt: skip
COLLAPSE = Claim(
    **HERE, name="layers-collapse", at_most=1e-5,
    sentence="Without activation functions ten layers are one matrix, to rounding.",
    quantity="largest difference from one matrix and bias, by the largest output, in single precision",
)  # fmt: skip
NONLINEAR = Claim(
    **HERE, name="relu-nonlinear", at_least=0.1,
    sentence="With ReLU between them, no matrix does what ten layers do.",
    quantity="part of the outputs' variance that the best matrix and bias leaves",
)  # fmt: skip
TANH_FASTER = Claim(
    **TRAINED, name="tanh-faster", at_most=1,
    sentence="tanh trains faster than the sigmoid.",
    quantity="training loss on digits, tanh's by the sigmoid's, each at its best learning rate",
)  # fmt: skip
CENTRE = Claim(
    **TRAINED, name="zero-centre", at_most=1,
    sentence="The zero centre alone makes tanh faster: tanh + 1, the same curve lifted, is slower.",
    quantity="training loss on digits, tanh's by that of tanh + 1, each at its best learning rate",
)  # fmt: skip
FAST_ALONE = Claim(
    **TIMED, name="relu-fast", at_least=1.5,
    sentence="ReLU is fast: by itself the sigmoid takes at least half as long again.",
    quantity="time of a sigmoid by that of a ReLU, forward and backward, 256 × 1,024 entries",
)  # fmt: skip
FAST_INSIDE = Claim(
    **TIMED, name="relu-fast-inside", at_least=1.1,
    sentence="That shortens a network's gradient step by a tenth or more.",
    quantity="time of the gradient of a 64-256-256-10 network, sigmoid's by ReLU's, batches of 256",
)  # fmt: skip


def lifted_tanh_forward(z):
    a, residuals = fnn.tanh_forward(z)
    return a + 1, residuals


LIFTED_TANH = fnn.activation_layer(lifted_tanh_forward, fnn.tanh_backward, fnn.LayerSpec("lifted_tanh"))
LEAKY = fnn.leaky_relu()


def value_and_derivative(layer: fnn.Layer, z: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's output at every z, and its derivative by its own backward pass."""
    a, _, residuals = layer.forward((), (), z[None], train=True)
    return np.asarray(a[0]), np.asarray(layer.backward(residuals, jnp.ones_like(a))[1][0])


@experiment_part("Values and slopes", RANGES, RANGES_COMPUTED, SATURATION, RELU_SLOPE)
def curves(settings: Settings) -> Outcome:
    def count_outside(most):
        z = jnp.linspace(-most, most, 100_001)
        sigmoid, tanh, relu = (value_and_derivative(layer, z)[0] for layer in (fnn.sigmoid, fnn.tanh, fnn.relu))
        return np.sum((sigmoid <= 0) | (sigmoid >= 1)) + np.sum(np.abs(tanh) >= 1) + np.sum(relu < 0)

    whole = jnp.arange(1, 100.0)
    reaches_one = {
        name: int(whole[np.argmax(value_and_derivative(layer, whole)[0] >= 1)])
        for name, layer in (("sigmoid", fnn.sigmoid), ("tanh", fnn.tanh))
    }
    far = jnp.concatenate([jnp.linspace(-100, -5, 10_001), jnp.linspace(5, 100, 10_001)])
    steepest = max(value_and_derivative(layer, far)[1].max() for layer in (fnn.sigmoid, fnn.tanh))
    results = (
        judge(RANGES, count_outside(5)),
        judge(RANGES_COMPUTED, count_outside(100),
              f"Single precision rounds the sigmoid to 1 by z = {reaches_one['sigmoid']} and tanh by "
              f"z = {reaches_one['tanh']}: one reason why a loss should take logits."),
        judge(SATURATION, steepest),
        judge(RELU_SLOPE, value_and_derivative(fnn.relu, jnp.geomspace(1e-30, 1e30, 1001))[1].min()),
    )  # fmt: skip
    axis = jnp.linspace(-5, 5, 201)
    families = (
        {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "ReLU": fnn.relu, "leaky ReLU": LEAKY},
        {"softplus": fnn.softplus, "ELU": fnn.elu, "GELU": fnn.gelu, "SiLU": fnn.silu},
    )
    drawn = [{name: value_and_derivative(layer, axis) for name, layer in family.items()} for family in families]
    figure = Figure(
        title="Every activation and its slope",
        alternative="Values and derivatives from −5 to 5. Sigmoid and tanh level off and their slopes are bells of "
        f"height {drawn[0]['sigmoid'][1].max():.2f} and {drawn[0]['tanh'][1].max():.2f}; ReLU's slope jumps from 0 to "
        "1, leaky ReLU's from 0.01. Softplus, ELU, GELU and SiLU are smooth rectifiers whose slopes climb to about 1.",
        panels=tuple(
            lines({name: Curve(axis, pair[which]) for name, pair in family.items()}, x="z", y=what)
            for family in drawn for which, what in enumerate(("value", "slope"))),
        caption="The slopes are those of the backward passes that train the networks of these pages.",
    )  # fmt: skip
    chosen = jnp.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    columns = [
        pair for name in ("sigmoid", "ReLU", "leaky ReLU") for pair in value_and_derivative(families[0][name], chosen)
    ]
    table = Table(
        "The chapter's table, computed", ("z", "sigmoid", "slope", "ReLU", "slope", "leaky ReLU", "slope"),
        tuple((f"{at:g}", *(f"{column[i]:.4f}" for column in columns)) for i, at in enumerate(chosen.tolist())),
    )  # fmt: skip
    text = f"""The ranges are as the chapter states, with one exception: in single precision the computed sigmoid is
exactly 1 at z = {reaches_one["sigmoid"]}, and its slope there exactly 0; tanh is by z = {reaches_one["tanh"]}. Beyond
|z| = 5 the steepest slope of sigmoid and tanh is {steepest:.4f}."""
    return Outcome(results, (figure,), (table,), text)


# Without activation functions --------------------------------------------------------------------------------------

UNITS, LAYERS, SAMPLES = 64, 10, 500


@jax.jit
@jax.vmap
def ten_layers(key: jax.Array):
    """Return the outputs of ten layers without ReLU, of the equivalent affine map, of ten with ReLU, and the inputs."""
    x_key, kernel_key, bias_key = jax.random.split(key, 3)
    x = jax.random.normal(x_key, (SAMPLES, UNITS))
    kernels = jax.random.normal(kernel_key, (LAYERS, UNITS, UNITS)) * UNITS**-0.5
    biases = jax.random.normal(bias_key, (LAYERS, UNITS))
    params = fnn.LinearParams(kernels, biases)
    plain, _, _ = fnn.repeat(fnn.linear(UNITS, UNITS), LAYERS).forward(params, (), x, train=False)
    block = fnn.serial(fnn.linear(UNITS, UNITS), fnn.relu)
    rectified, _, _ = fnn.repeat(block, LAYERS).forward((params, ()), ((), ()), x, train=False)
    start = jnp.eye(UNITS), jnp.zeros((1, UNITS))
    (kernel, bias), _ = lax.scan(lambda one, layer: ((one[0] @ layer[0], one[1] @ layer[0] + layer[1]), None), start,
                                 (kernels, biases[:, None]))  # fmt: skip
    return plain, x @ kernel + bias, rectified, x


def unexplained_by_linear_fit(x: np.ndarray, y: np.ndarray) -> float:
    """Return the share of y's variance that the least-squares matrix and bias doesn't explain."""
    design = np.column_stack([x, np.ones(len(x))]).astype(float)
    # The normal equations are enough for inputs that are independent.
    y = y.astype(float)
    coefficients = np.linalg.solve(design.T @ design, design.T @ y)
    return float(((y - design @ coefficients) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())


@experiment_part("A network without activation functions", COLLAPSE, NONLINEAR)
def collapse(settings: Settings) -> Outcome:
    plain, one, rectified, x = (np.asarray(array) for array in ten_layers(settings.keys_of(COLLAPSE)))
    gap = np.abs(plain - one).max((1, 2)) / np.abs(one).max((1, 2))
    left = np.array([unexplained_by_linear_fit(*pair) for pair in zip(x, rectified, strict=True)])
    results = judge(COLLAPSE, gap), judge(NONLINEAR, left)
    text = f"""Ten linear layers, multiplied out, differ from their one matrix by {format_number(gap.mean(), 2)} of the
largest output, a few roundings of 1.2·10⁻⁷. Put ReLU between them and the best matrix that least squares can find
leaves {100 * left.mean():.0f}% of the outputs' variance unexplained."""
    return Outcome(results, text=text)


# The zero centre ---------------------------------------------------------------------------------------------------

RATES = (0.1, 0.3, 1.0, 3.0, 10.0)


@experiment_part("tanh's zero centre", TANH_FASTER, CENTRE)
def zero_centre(settings: Settings) -> Outcome:
    data = digits().training
    kinds = {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "tanh + 1": LIFTED_TANH}
    every = [layer for activation in kinds.values() for layer in (fnn.linear(4, 4), activation)]
    few = fnn.Batch(data.x[:4, 20:24], data.y[:4] % 4)
    grad = checked_value_and_grad(settings, fnn.serial(*every, fnn.linear(4, 4)), fnn.softmax_cross_entropy, few)
    epochs = settings.steps(quick=4, full=15)
    keys = settings.keys_of(TANH_FASTER)
    losses = {}
    for name, activation in kinds.items():
        model = fnn.mlp((64, 32, 32, 10), activation)

        def run(key, rate, model=model):
            trained = fnn.train(model, fnn.softmax_cross_entropy, fnn.sgd(rate), data, epochs=epochs, batch_size=32,
                                key=key, grad=grad)  # fmt: skip
            return trained.history.loss

        many = jax.jit(jax.vmap(jax.vmap(run, in_axes=(0, None)), in_axes=(None, 0)))
        found = np.asarray(many(keys, jnp.array(RATES)))
        losses[name] = np.where(np.isfinite(found), found, np.inf).clip(max=10)
    final = {name: loss[..., -1] for name, loss in losses.items()}
    best = {name: int(loss.mean(1).argmin()) for name, loss in final.items()}
    chosen = {name: loss[best[name]] for name, loss in final.items()}
    rates = ", ".join(f"{name} {RATES[at]:g}" for name, at in best.items())
    results = (
        judge(TANH_FASTER, chosen["tanh"] / chosen["sigmoid"], f"The best rates: {rates}."),
        judge(CENTRE, chosen["tanh"] / chosen["tanh + 1"]),
    )
    summary = ", ".join(f"{name} {loss.mean():.3f}" for name, loss in chosen.items())
    figure = Figure(
        title="Training loss by epoch and by learning rate, for three activations",
        alternative=f"Training loss on digits by epoch, each activation at its best rate, and after {epochs} epochs by "
        f"learning rate. At the best rates: {summary}.",
        panels=(
            lines({name: Curve(1 + np.arange(epochs), loss[best[name]].mean(0), *np.quantile(
                loss[best[name]], (0.025, 0.975), axis=0)) for name, loss in losses.items()},
                x="epoch", y="training loss", log="y", subtitle="at its best rate", points=True),
            lines({name: Curve(RATES, loss.mean(1)) for name, loss in final.items()},
                  x="learning rate", y="training loss", log="xy", subtitle=f"after {epochs} epochs", points=True),
        ),
        caption="64-32-32-10, plain descent in batches of 32. Mean over the seeds, with the range of 95% of them. A "
        "loss above 10, or not finite, counts as 10.",
    )  # fmt: skip
    text = f"""Training loss after {epochs} epochs, each at its best learning rate ({rates}): {summary}. tanh is a
sigmoid stretched to twice the height and half the width, 2σ(2z) − 1, so it differs in slope as well as in centre. tanh
+ 1 has tanh's slopes without its centre: what lies between the two is the centre's doing, the rest is the slope's."""
    return Outcome(results, (figure,), text=text)


# Speed -------------------------------------------------------------------------------------------------------------


def measure_seconds(functions: dict, repetitions: int) -> dict[str, np.ndarray]:
    """Return the times of functions that run in turns, so that other load on the machine affects them equally."""
    for function in functions.values():
        jax.block_until_ready(function())
    times = {name: [] for name in functions}
    for _ in range(repetitions):
        for name, function in functions.items():
            began = time.perf_counter()
            jax.block_until_ready(function())
            times[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in times.items()}


@experiment_part("The cost of ReLU and sigmoid", FAST_ALONE, FAST_INSIDE)
def speed(settings: Settings) -> Outcome:
    kinds = {"sigmoid": fnn.sigmoid, "ReLU": fnn.relu}
    z = jax.random.normal(jax.random.key(0), (256, 1024))
    batch = fnn.Batch(z[:, :64], jnp.arange(256) % 10)

    def layer_step(layer):
        def forward_and_backward(z):
            a, _, residuals = layer.forward((), (), z, train=True)
            return a, layer.backward(residuals, a)[1]

        return partial(jax.jit(forward_and_backward), z)

    def network_step(layer):
        model = fnn.mlp((64, 256, 256, 10), layer)
        grad = jax.jit(settings.value_and_grad(model, fnn.softmax_cross_entropy))
        return partial(grad, *model.init(jax.random.key(0)), batch)

    taken = {
        what: measure_seconds({name: of(layer) for name, layer in kinds.items()}, settings.seeds_of(FAST_ALONE))
        for what, of in (("alone", layer_step), ("inside", network_step))
    }
    ratio = {what: times["sigmoid"] / times["ReLU"] for what, times in taken.items()}
    device = f"Measured on {jax.devices()[0].device_kind}; another machine has other figures."
    results = judge(FAST_ALONE, ratio["alone"], device), judge(FAST_INSIDE, ratio["inside"], device)
    text = f"""By itself the sigmoid takes {np.median(ratio["alone"]):.1f} times as long as ReLU. In a network most of
the time goes to the kernels: its gradient takes {np.median(ratio["inside"]):.2f} times as long with sigmoids. These are
times of the machine that wrote the page; another run gives other figures."""
    return Outcome(results, text=text)


EXPERIMENT = Experiment(
    name="activations",
    order=2.1,
    title="Activation functions",
    introduction="""The ranges and slopes of activation functions, a network without any, the effect of tanh's zero
centre on training, and the time that ReLU saves.""",
    parts=(curves, collapse, zero_centre, speed),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
