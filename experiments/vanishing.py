"""Vanishing and exploding gradients at the first layer, by activation, initialization and depth.

Fifty layers of sigmoid, tanh and ReLU under five initializations; then the chapter's two networks of ten layers,
trained. We measure ∂L/∂z, the cotangent of a layer's pre-activations.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import funcnn as fnn
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    Table,
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, bars, lines
from experiments.harness.runner import run_command_line
from experiments.shared.data import digits

DEEP = {"section": Section.VANISHING, "seeds": 200, "quick_seeds": 40}
MISTAKE = {"section": Section.MISTAKE_SIGMOID, "seeds": 20, "quick_seeds": 5}
FIFTY = "decimal logarithm of the size of ∂L/∂z after fifty layers, at the first by at the last"
TEN = "decimal logarithm of the size of ∂L/∂z after ten layers, at the first by at the last"

QUARTER = Claim(
    name="sigmoid-quarter", section=Section.MISTAKE_SIGMOID, statistic="exact", at_most=0.25,
    sentence="A sigmoid multiplies the gradient by at most a quarter.",
    quantity="largest derivative on a million points of [−20, 20], zero among them",
)  # fmt: skip
TEN_XAVIER = Claim(
    **DEEP | {"section": Section.MISTAKE_SIGMOID}, name="ten-sigmoids-xavier", quantity=TEN, at_most=-6.02,
    sentence="Ten sigmoid layers with Xavier kernels leave at most 0.25¹⁰, a millionth, of the gradient.",
)  # fmt: skip
TEN_CHAPTER = Claim(
    **DEEP | {"section": Section.MISTAKE_SIGMOID}, name="ten-sigmoids-chapter", quantity=TEN, at_least=-7, at_most=-5,
    sentence="In the chapter's own network, of kernels 0.01·N(0, 1), a millionth is left, give or take tenfold.",
)  # fmt: skip
TEN_LARGE = Claim(
    **DEEP | {"section": Section.MISTAKE_SIGMOID}, name="ten-sigmoids-large", quantity=TEN, at_most=-6.02,
    sentence="Ten sigmoid layers leave at most a millionth however large the kernels are: N(0, 1), say.",
)  # fmt: skip
EXPONENTIAL = Claim(
    **DEEP, name="sigmoid-exponential", at_least=0.95, statistic="median",
    sentence="In a sigmoid network the gradient falls exponentially with depth.",
    quantity="R² of a straight line of log ∂L/∂z against depth 2 to 50, Xavier kernels; 0 where it rises",
)  # fmt: skip
TANH_VANISHES = Claim(
    **DEEP, name="tanh-vanishes", quantity=FIFTY, at_most=-3,
    sentence="It vanishes in tanh networks too, to under a thousandth in fifty layers of Xavier kernels.",
)  # fmt: skip
XAVIER_SIGMOID = Claim(
    **DEEP, name="xavier-saves-sigmoid", quantity=FIFTY, at_least=-3,
    sentence="Xavier's initialization keeps a sigmoid network's gradient from vanishing.",
)  # fmt: skip
RELU_HE = Claim(
    **DEEP | {"seeds": 1000, "quick_seeds": 100}, name="relu-he", statistic="share", at_least=0.9,
    sentence="ReLU with He's initialization keeps the gradient within a factor of ten over fifty layers.",
    quantity="whether the size of ∂L/∂z at the first layer is a tenth to ten times that at the last",
)  # fmt: skip
RELU_ALONE = Claim(
    **DEEP, name="relu-alone", quantity=FIFTY, at_least=-3,
    sentence="ReLU alone keeps it from vanishing, whatever the kernels: 0.01·N(0, 1), say.",
)  # fmt: skip
EXPLODES_RELU = Claim(
    **DEEP, name="large-explode-relu", quantity=FIFTY, at_least=3,
    sentence="Large kernels, N(0, 1), make the gradient of a ReLU network explode.",
)  # fmt: skip
EXPLODES_SIGMOID = Claim(
    **DEEP, name="large-explode-sigmoid", quantity=FIFTY, at_least=3,
    sentence="Large kernels, N(0, 1), make the gradient of a sigmoid network explode.",
)  # fmt: skip
SIGMOID_STUCK = Claim(
    **MISTAKE, name="sigmoid-stuck", at_most=0.2, quantity="test accuracy on digits",
    sentence="Ten sigmoid layers with kernels 0.01·N(0, 1) don't learn digits.",
)  # fmt: skip
RELU_LEARNS = Claim(
    **MISTAKE, name="relu-learns", at_least=0.9, quantity="test accuracy on digits",
    sentence="Ten ReLU layers with He's initialization do.",
)  # fmt: skip
RELU_SWAPPED = Claim(
    **MISTAKE, name="relu-swapped", at_least=0.9, quantity="test accuracy on digits",
    sentence="ReLU in the sigmoid's place is enough: it learns digits with kernels 0.01·N(0, 1) too.",
)  # fmt: skip

ACTIVATIONS = {"sigmoid": fnn.sigmoid, "tanh": fnn.tanh, "ReLU": fnn.relu}
UNITS = 64
INITIALIZATIONS = {
    "0.01·N(0, 1)": ("normal", 0.01),
    "U[−1/√n, 1/√n]": ("uniform", UNITS**-0.5),
    "Xavier": ("uniform", (3 / UNITS) ** 0.5),
    "He": ("normal", (2 / UNITS) ** 0.5),
    "N(0, 1)": ("normal", 1.0),
}
FRAME = (-36, 24)
PASSED = (2, 3, 5, 7, 10, 15, 20, 30, 40, 50)


def checked_repeat_value_and_grad(settings: Settings):
    """Return the settings' gradients after checking a network with every kind of layer."""
    blocks = [fnn.repeat(fnn.serial(fnn.linear(5, 5), activation), 2) for activation in ACTIVATIONS.values()]
    few = fnn.Batch(jax.random.normal(jax.random.key(1), (4, 5)), jnp.arange(4))
    return checked_value_and_grad(settings, fnn.serial(*blocks, fnn.linear(5, 5)), fnn.softmax_cross_entropy, few)


@partial(jax.jit, static_argnums=0)
def cotangent_ratios(activation: fnn.Layer, keys: jax.Array) -> jax.Array:
    """Return |∂L/∂z| at the first layer over that at the last, ``(seeds, initializations, depths in PASSED)``.

    A network of d layers is the first d of fifty; a cotangent of length 1 and random direction enters at its end.
    """
    block = fnn.serial(activation, fnn.linear(UNITS, UNITS))

    def one(kernels, z, dy_at_end):
        params = ((), fnn.LinearParams(kernels, jnp.zeros(kernels.shape[:2])))

        def up(z, layer_params):
            z, _, residuals = block.forward(layer_params, ((), ()), z, train=True)
            return z, residuals

        _, residuals = lax.scan(up, z, params)

        def down(dy, layer):
            number, kept = layer
            dy = jnp.where((jnp.array(PASSED) == number)[:, None], dy_at_end, dy)
            return jax.vmap(lambda dy: block.backward(kept, dy[None])[1][0])(dy), None

        nothing = jnp.zeros((len(PASSED), UNITS))
        dy, _ = lax.scan(down, nothing, (1 + jnp.arange(max(PASSED)), residuals), reverse=True)
        return jnp.linalg.norm(dy, axis=-1)

    def of_seed(key):
        x_key, kernel_key, dy_key = jax.random.split(key, 3)
        shape = (max(PASSED) + 1, UNITS, UNITS)
        drawn = {"normal": jax.random.normal(kernel_key, shape),
                 "uniform": jax.random.uniform(kernel_key, shape, minval=-1, maxval=1)}  # fmt: skip
        kernels = jnp.stack([scale * drawn[kind] for kind, scale in INITIALIZATIONS.values()])
        z = jax.random.normal(x_key, (1, UNITS)) @ kernels[:, 0]
        dy = jax.random.normal(dy_key, (UNITS,))
        return jax.vmap(one, in_axes=(0, 0, None))(kernels[:, 1:], z, dy / jnp.linalg.norm(dy))

    return lax.map(of_seed, keys, batch_size=10)


def linear_fit_r2(logs: np.ndarray) -> np.ndarray:
    """Return R² of a straight line through every row against PASSED; 0 where it rises."""
    correlation = np.array([np.corrcoef(PASSED, row)[0, 1] for row in logs])
    return np.where(correlation < 0, correlation**2, 0)


@experiment_part(
    "Through two to fifty layers", QUARTER, TEN_XAVIER, TEN_CHAPTER, TEN_LARGE, EXPONENTIAL, TANH_VANISHES,
    XAVIER_SIGMOID, RELU_HE, RELU_ALONE, EXPLODES_RELU, EXPLODES_SIGMOID,
)  # fmt: skip
def depth(settings: Settings) -> Outcome:
    checked_repeat_value_and_grad(settings)
    z = jnp.linspace(-20, 20, 1_000_001)[None]
    _, _, kept = fnn.sigmoid.forward((), (), z, train=True)
    steepest = fnn.sigmoid.backward(kept, jnp.ones_like(z))[1].max()

    few, many = settings.keys_of(EXPONENTIAL), settings.keys_of(RELU_HE)
    logs = {
        name: np.log10(np.asarray(cotangent_ratios(layer, many if name == "ReLU" else few)))
        for name, layer in ACTIVATIONS.items()
    }

    def of(activation, initialization, passed):
        at = list(INITIALIZATIONS).index(initialization), PASSED.index(passed)
        return logs[activation][: len(few), at[0], at[1]]

    he_within = np.abs(logs["ReLU"][:, list(INITIALIZATIONS).index("He"), -1]) <= 1
    results = (
        judge(QUARTER, steepest),
        judge(TEN_XAVIER, of("sigmoid", "Xavier", 10)),
        judge(TEN_CHAPTER, of("sigmoid", "0.01·N(0, 1)", 10),
              "The kernels shrink it too: 64 entries of 0.01 multiply it by 0.08 a layer, beside the sigmoid's 0.25."),
        judge(TEN_LARGE, of("sigmoid", "N(0, 1)", 10)),
        judge(EXPONENTIAL, linear_fit_r2(logs["sigmoid"][:, list(INITIALIZATIONS).index("Xavier")])),
        judge(TANH_VANISHES, of("tanh", "Xavier", 50)),
        judge(XAVIER_SIGMOID, of("sigmoid", "Xavier", 50)),
        judge(RELU_HE, he_within),
        judge(RELU_ALONE, of("ReLU", "0.01·N(0, 1)", 50),
              f"With U[−1/√n, 1/√n] it is {of('ReLU', 'U[−1/√n, 1/√n]', 50).mean():.1f}."),
        judge(EXPLODES_RELU, of("ReLU", "N(0, 1)", 50)),
        judge(EXPLODES_SIGMOID, of("sigmoid", "N(0, 1)", 50)),
    )  # fmt: skip
    typical = {name: dict(zip(INITIALIZATIONS, values[:, :, -1].mean(0), strict=True)) for name, values in logs.items()}
    summary = "; ".join(
        f"{name}: " + ", ".join(f"{initialization} 10^{value:.0f}" for initialization, value in typical[name].items())
        for name in typical
    )
    lowest, highest = FRAME

    def frame(sizes):
        """Return the mean and the range of 95% of the logarithms; values outside the frame aren't drawn."""
        curves = np.stack([sizes.mean(0), *np.quantile(sizes, (0.025, 0.975), axis=0)])
        return 10.0 ** np.where((lowest <= curves) & (curves <= highest), curves, np.nan)

    figure = Figure(
        title="Gradient at the first layer over that at the last, by the layers between",
        alternative=f"Size of ∂L/∂z at the first layer by that at the last against the layers between, for three "
        f"activations and five initializations: straight lines on a logarithmic axis. After fifty layers, {summary}.",
        panels=tuple(
            lines(
                {label: Curve(PASSED, *frame(values[:, i])) for i, label in enumerate(INITIALIZATIONS)},
                x="layers", y="|∂L/∂z| first / last", log="y", subtitle=name, points=True,
                range_y=(10.0**lowest, 10.0**highest))
            for name, values in logs.items()),
        caption="Layers of 64 units. Geometric mean over the seeds, with the range of 95% of them. A level curve is "
        "ideal; curves that leave the frame continue straight below or above it.",
    )  # fmt: skip
    table = Table(
        "log₁₀ of the gradient left after fifty layers", ("activation", *INITIALIZATIONS),
        tuple((name, *(f"{value:.1f}" for value in typical[name].values())) for name in typical),
        "Mean over the seeds. 0 is a gradient that arrives as it left.",
    )  # fmt: skip
    text = f"""The quarter is right, and so is the exponential fall. But the sigmoid's derivative is one factor of
two: every layer multiplies by its kernel as well. In the chapter's ten layers with kernels 0.01·N(0, 1) the first layer
gets 10^{results[2].estimate:.1f} of the gradient, where the quarters alone would leave 10^-6.0; with kernels N(0, 1)
it gets 10^{results[3].estimate:.1f}, so 0.25¹⁰ is no upper bound.

ReLU is no cure by itself either. With He's initialization {100 * he_within.mean():.0f}% of fifty-layer networks keep
the gradient within a factor of ten; with 0.01·N(0, 1) the first layer gets 10^{typical["ReLU"]["0.01·N(0, 1)"]:.0f} of
it. Xavier's initialization, named as the remedy for sigmoid and tanh, is one for tanh
(10^{typical["tanh"]["Xavier"]:.1f} after fifty layers) and none for sigmoid (10^{typical["sigmoid"]["Xavier"]:.0f}):
it was derived for a slope of one at zero, and the sigmoid's is a quarter. Large kernels, N(0, 1), make the gradient
explode in ReLU and tanh networks (10^{typical["ReLU"]["N(0, 1)"]:.0f}, 10^{typical["tanh"]["N(0, 1)"]:.0f}); sigmoids
saturate under them and let through less (10^{typical["sigmoid"]["N(0, 1)"]:.1f})."""
    return Outcome(results, (figure,), (table,), text)


@experiment_part("The chapter's ten layers, trained", SIGMOID_STUCK, RELU_LEARNS, RELU_SWAPPED)
def trained_networks(settings: Settings) -> Outcome:
    data = digits()
    grad = checked_repeat_value_and_grad(settings)
    keys = settings.keys_of(SIGMOID_STUCK)
    epochs = settings.steps(quick=4, full=12)
    accuracies, losses = {}, {}
    for name, activation, matched in (("sigmoid", fnn.sigmoid, "Xavier"), ("ReLU", fnn.relu, "He")):
        layers = fnn.repeat(fnn.serial(fnn.linear(UNITS, UNITS), activation), 10)
        model = fnn.serial(layers, fnn.linear(UNITS, 10))

        def run(key, scale, model=model):
            params, _ = model.init(key)
            params = jax.tree.map(lambda leaf: scale * leaf, params)
            result = fnn.train(model, fnn.softmax_cross_entropy, fnn.adam(1e-3), data.training, epochs=epochs,
                               batch_size=32, key=key, params=params, grad=grad)  # fmt: skip
            prediction = fnn.predict(model, result.params, result.state, data.test.x)
            return (prediction.argmax(-1) == data.test.y).mean(), result.history.loss

        # linear() draws Xavier's kernels, of standard deviation √(1/64).
        scales = {"0.01·N(0, 1)": 0.01 * UNITS**0.5, matched: {"Xavier": 1, "He": 2**0.5}[matched]}
        of_scales = jax.vmap(jax.vmap(run, in_axes=(0, None)), in_axes=(None, 0))
        accuracy, loss = jax.jit(of_scales)(keys, jnp.array(list(scales.values())))
        for i, initialization in enumerate(scales):
            accuracies[f"{name}, {initialization}"] = np.asarray(accuracy[i], float)
            losses[f"{name}, {initialization}"] = np.nan_to_num(np.asarray(loss[i]), nan=np.inf)
    results = (
        judge(SIGMOID_STUCK, accuracies["sigmoid, 0.01·N(0, 1)"],
              f"With Xavier kernels it is {accuracies['sigmoid, Xavier'].mean():.2f}."),
        judge(RELU_LEARNS, accuracies["ReLU, He"]),
        judge(RELU_SWAPPED, accuracies["ReLU, 0.01·N(0, 1)"]),
    )  # fmt: skip
    summary = ", ".join(f"{name} {values.mean():.2f}" for name, values in accuracies.items())
    figure = Figure(
        title="Training loss by epoch, and test accuracy, of ten layers",
        alternative=f"Training loss by epoch and test accuracy of four networks of ten layers on digits: {summary}.",
        panels=(
            lines({name: Curve(1 + np.arange(epochs), np.median(values, 0)) for name, values in losses.items()},
                  x="epoch", y="training loss (median)", points=True),
            bars({name: (values.mean(), values.min(), values.max()) for name, values in accuracies.items()},
                 x="test accuracy (mean, least, most)", thresholds={"chance": 0.1}),
        ),
        caption="Ten layers of 64 units and a linear output, Adam with its default rate, batches of 32.",
    )  # fmt: skip
    text = f"""Test accuracy on digits after {epochs} epochs: {summary}. The chapter shows the mistake and the cure with
two changes at once, activation and kernels. The networks between them tell the two apart: larger kernels alone take the
sigmoids to {accuracies["sigmoid, Xavier"].mean():.2f}, ReLU alone takes the small kernels to
{accuracies["ReLU, 0.01·N(0, 1)"].mean():.2f}."""
    return Outcome(results, (figure,), text=text)


EXPERIMENT = Experiment(
    name="vanishing",
    order=8.1,
    title="Vanishing and exploding gradients",
    introduction="""On its way to the first layer each layer multiplies the gradient by its activation's
derivative and by its kernel. We measure ∂L/∂z, the gradient by a layer's pre-activations, through two to fifty layers
of sigmoid, tanh and ReLU under five initializations, before their first step. Then the chapter's two networks of ten
layers are trained, and the two between them.""",
    parts=(depth, trained_networks),
    precision="float64",
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
