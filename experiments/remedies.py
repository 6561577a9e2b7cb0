"""Remedies for vanishing and exploding gradients in thirty layers, one at a time and together.

All networks have 30 hidden layers of 32 units and learn scikit-learn's digits. Each recipe is given three learning
rates and judged at its own best one, so that none fails for the sake of a rate that suited another.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, interval, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, bars, heatmap, lines
from experiments.harness.runner import run_command_line
from experiments.shared.data import digits
from experiments.shared.initialization import Initializer, fan_in_uniform, he_normal, init_ensemble, xavier_normal

WIDTH, DEPTH, SAMPLES, BATCH = 32, 30, 640, 16
RATES = (0.001, 0.005, 0.03)
GUESSING, LEARNS, WELL = 0.2, 0.5, 0.9  # at most, at least, at least: accuracies on the training samples
SCALES = (0.75, 1.0, 1.5, 2.0)
FOLDS = 2.0  # how many times as large as He's the kernels are that make gradients explode
UNCLIPPED = 1e30


class NetworkRecipe(NamedTuple):
    """The parts of a network; ``bound`` is the norm at which gradients are clipped."""

    activation: fnn.Layer
    draw: Initializer
    normalization: Callable[[int], fnn.Layer] | None = None
    skip: bool = False
    bound: float = UNCLIPPED


def claim(name: str, sentence: str, source: str = "", *, at_least=LEARNS, at_most=np.inf) -> Claim:
    """Return a claim on the accuracy that a recipe reaches on its own training samples."""
    return Claim(
        name=f"remedies-{name}", sentence=sentence, section=Section.VANISHING, source=source, seeds=20, quick_seeds=4,
        quantity="accuracy on the training samples after the last step, at the recipe's best learning rate",
        at_least=at_least if at_most == np.inf else -np.inf, at_most=at_most,
    )  # fmt: skip


NETWORK_RECIPES = {
    "sigmoid": NetworkRecipe(fnn.sigmoid, fan_in_uniform),
    "sigmoid + Xavier": NetworkRecipe(fnn.sigmoid, xavier_normal),
    "sigmoid + clipping": NetworkRecipe(fnn.sigmoid, fan_in_uniform, bound=1.0),
    "sigmoid + batch norm": NetworkRecipe(fnn.sigmoid, fan_in_uniform, fnn.batch_norm),
    "sigmoid + layer norm": NetworkRecipe(fnn.sigmoid, fan_in_uniform, fnn.layer_norm),
    "sigmoid + skip": NetworkRecipe(fnn.sigmoid, fan_in_uniform, skip=True),
    "tanh + Xavier": NetworkRecipe(fnn.tanh, xavier_normal),
    "ReLU": NetworkRecipe(fnn.relu, fan_in_uniform),
    "ReLU + He": NetworkRecipe(fnn.relu, he_normal),
    "ReLU + He + skip": NetworkRecipe(fnn.relu, he_normal, skip=True),
    "all together": NetworkRecipe(fnn.relu, he_normal, fnn.batch_norm, skip=True, bound=1.0),
}
CLAIMS = {
    "sigmoid": claim(
        "none", "Thirty sigmoid layers from the usual start don't learn: at most 20% of their own samples right.",
        at_most=GUESSING),
    "sigmoid + Xavier": claim("xavier", "Xavier's initialization alone makes thirty sigmoid layers learn."),
    "sigmoid + clipping": claim("clipping", "Clipping gradients alone makes thirty sigmoid layers learn."),
    "sigmoid + batch norm": claim("batch-norm", "Batch normalization alone makes thirty sigmoid layers learn."),
    "sigmoid + layer norm": claim(
        "layer-norm", "Layer normalization alone makes thirty sigmoid layers learn.",
        "Ba, Kiros and Hinton, Layer normalization, 2016"),
    "sigmoid + skip": claim("skip", "Skip connections alone make thirty sigmoid layers learn."),
    "tanh + Xavier": claim("tanh-xavier", "Thirty tanh layers learn from Xavier's initialization."),
    "ReLU": claim("relu", "ReLU alone, from the usual start, makes thirty layers learn."),
    "ReLU + He": claim("relu-he", "Thirty ReLU layers learn from He's initialization."),
    "ReLU + He + skip": claim("relu-he-skip", "Thirty ReLU layers learn from He's start with skip connections."),
    "all together": claim(
        "together", "ReLU, He, batch norm, skips and clipping together make them learn 90% of their samples.",
        at_least=WELL),
}  # fmt: skip
GROWS = Claim(
    name="remedies-explode", section=Section.VANISHING, at_least=1.1, quick_seeds=4, seeds=20,
    sentence="From kernels twice as large as He's, gradients grow exponentially on their way back.",
    quantity="factor by which the cotangent grows each layer, geometric mean, before any step",
)  # fmt: skip
BREAKS = Claim(
    name="remedies-explode-fails", section=Section.VANISHING, at_least=0.8, statistic="share", quick_seeds=4, seeds=20,
    sentence="Unclipped, nearly every network from kernels twice as large ends at NaN or no better than guessing.",
    quantity="the loss isn't finite, or at most 20% of its own samples are right, at rate 0.001",
)  # fmt: skip
FINITE = Claim(
    name="remedies-clip-finite", section=Section.VANISHING, at_least=0.8, statistic="share", quick_seeds=4, seeds=20,
    sentence="Clipped to norm 1, nearly every such network keeps a finite loss to the end.",
    quantity="the loss of every epoch is finite, at rate 0.001",
)  # fmt: skip
CLIPPED_LEARNS = Claim(
    name="remedies-clip-learns", section=Section.VANISHING, at_least=LEARNS, quick_seeds=4, seeds=20,
    sentence="Clipping makes a network learn whose gradients explode.",
    quantity="accuracy on the training samples from kernels twice as large as He's, at the better rate",
)  # fmt: skip


def block(recipe: NetworkRecipe) -> fnn.Layer:
    norm = [] if recipe.normalization is None else [recipe.normalization(WIDTH)]
    inner = fnn.serial(fnn.linear(WIDTH, WIDTH), *norm, recipe.activation)
    return fnn.skip(inner) if recipe.skip else inner


def network(recipe: NetworkRecipe) -> fnn.Layer:
    first = fnn.serial(fnn.linear(64, WIDTH), recipe.activation)
    return fnn.serial(first, fnn.repeat(block(recipe), DEPTH - 1), fnn.linear(WIDTH, 10))


def checked_recipe_value_and_grad(settings: Settings):
    """Return the settings' gradients after checking every layer and combinator of the recipes in one network."""
    inner = fnn.serial(fnn.linear(4, 4), fnn.batch_norm(4), fnn.relu)
    everything = fnn.serial(
        fnn.linear(4, 4), fnn.layer_norm(4), fnn.sigmoid, fnn.repeat(fnn.skip(inner), 2), fnn.tanh, fnn.linear(4, 4)
    )
    few = fnn.Batch(jax.random.normal(jax.random.key(1), (6, 4)), jnp.arange(6) % 4)
    return checked_value_and_grad(settings, everything, fnn.softmax_cross_entropy, few)


class TrainingResult(NamedTuple):
    """Accuracy on the training samples and whether the loss stayed finite, ``(seeds, settings)`` each."""

    accuracy: np.ndarray
    finite: np.ndarray


@partial(jax.jit, static_argnames=("model", "grad", "epochs"))
def train_network(params, state, keys, rates, bounds, batch: fnn.Batch, *, model, grad, epochs: int):
    def one(params, state, key, rate, bound):
        optimizer = optax.chain(fnn.clip_by_global_norm(bound), fnn.momentum(rate, 0.9))
        trained = fnn.train(
            model, fnn.softmax_cross_entropy, optimizer, batch, epochs=epochs, batch_size=BATCH, key=key, grad=grad,
            params=params, state=state,
        )  # fmt: skip
        prediction = fnn.predict(model, trained.params, trained.state, batch.x)
        return fnn.accuracy(prediction, batch.y), jnp.isfinite(trained.history.loss).all() & jnp.isfinite(
            prediction
        ).all()

    return jax.vmap(jax.vmap(one, (None, None, None, 0, 0)), (0, 0, 0, None, None))(params, state, keys, rates, bounds)


def train_recipe(
    settings: Settings, recipe: NetworkRecipe, seeds: int, grad, epochs: int, rates=RATES, bounds=None
) -> TrainingResult:
    params, state = init_ensemble(network(recipe), seeds, recipe.draw, settings.seed)
    found = train_network(
        params, state, jax.random.split(jax.random.key(settings.seed), seeds), jnp.array(rates),
        jnp.array(bounds or (recipe.bound,) * len(rates)), load_samples(), model=network(recipe), grad=grad,
        epochs=epochs,
    )  # fmt: skip
    return TrainingResult(*map(np.asarray, found))


def load_samples() -> fnn.Batch:
    data = digits().training
    return fnn.Batch(data.x[:SAMPLES], data.y[:SAMPLES])


def cotangent_sizes(recipe: NetworkRecipe, seeds: int, seed: int = 0) -> np.ndarray:
    """Return the mean size of the gradient by every hidden layer's output before training, ``(seeds, DEPTH)``."""
    params, state = init_ensemble(network(recipe), seeds, recipe.draw, seed)
    return np.asarray(
        backward_with_sizes(params, state, load_samples(), activation=recipe.activation, middle=block(recipe))
    )


@partial(jax.jit, static_argnames=("activation", "middle"))
def backward_with_sizes(params, state, batch: fnn.Batch, *, activation: fnn.Layer, middle: fnn.Layer):
    """Run the layers' forward and backward passes and measure the cotangent at every layer."""
    first, last = fnn.serial(fnn.linear(64, WIDTH), activation), fnn.linear(WIDTH, 10)

    def block_forward(x, part):
        y, _, residuals = middle.forward(*part, x, train=True)
        return y, residuals

    def block_backward(dy, residuals):
        return middle.backward(residuals, dy)[1], jnp.abs(dy).mean()

    def one(params, state):
        x, _, _ = first.forward(params[0], state[0], batch.x, train=True)
        x, kept = lax.scan(block_forward, x, (params[1], state[1]))
        y, _, kept_last = last.forward(params[2], state[2], x, train=True)
        value, kept_loss = fnn.softmax_cross_entropy.forward(y, batch.y)
        dy = last.backward(kept_last, fnn.softmax_cross_entropy.backward(kept_loss, jnp.ones_like(value)))[1]
        dx, sizes = lax.scan(block_backward, dy, kept, reverse=True)
        return jnp.append(jnp.abs(dx).mean(), sizes)

    return jax.vmap(one)(params, state)


@experiment_part("One remedy at a time, and together", *CLAIMS.values())
def remedies(settings: Settings) -> Outcome:
    grad, epochs = checked_recipe_value_and_grad(settings), settings.steps(quick=6, full=30)
    found = {
        name: train_recipe(settings, recipe, settings.seeds_of(CLAIMS[name]), grad, epochs).accuracy
        for name, recipe in NETWORK_RECIPES.items()
    }
    best = {name: accuracy[:, accuracy.mean(0).argmax()] for name, accuracy in found.items()}
    rate = {name: RATES[accuracy.mean(0).argmax()] for name, accuracy in found.items()}
    results = tuple(judge(CLAIMS[name], values, f"Best learning rate {rate[name]:g}.") for name, values in best.items())
    estimates = {name: result.estimate for name, result in zip(best, results, strict=True)}
    cured = [name for name, estimate in estimates.items() if estimate >= LEARNS]
    vanishing = {
        name: cotangent_sizes(NETWORK_RECIPES[name], settings.seeds_of(GROWS), settings.seed) for name in SHOWN
    }
    ratio = {name: np.median(norms[:, 0] / norms[:, -1]) for name, norms in vanishing.items()}
    words = ", ".join(f"{name} {estimate:.0%}" for name, estimate in estimates.items())
    return Outcome(
        results,
        (
            Figure(
                "Accuracy of thirty layers by recipe",
                f"Accuracy on the training samples with its 95% interval, by recipe: {words}. Guessing has 10%.",
                (bars({name: (estimates[name], *interval(values)) for name, values in best.items()},
                      x="accuracy on training samples", thresholds={"learns": LEARNS}),),
                f"Each recipe at its own best learning rate of three, after {epochs * SAMPLES // BATCH:,} steps.",
            ),
            Figure(
                "Size of the gradient by hidden layer, before training",
                "Mean size of the loss's gradient by each hidden layer's output before any step. From the last layer "
                "to the first it is multiplied by: "
                + "; ".join(f"{name} {format_number(value, 2)}" for name, value in ratio.items()) + ".",
                (lines({name: Curve(np.arange(1, DEPTH + 1), *np.quantile(norms, (0.5, 0.1, 0.9), axis=0))
                        for name, norms in vanishing.items()}, x="hidden layer", y="mean |∂L/∂output|", log="y"),),
                "Medians over seeds, bands from the 10th to the 90th percentile. A level line is a gradient that "
                "arrives undiminished.",
            ),
            Figure(
                "Accuracy by recipe and learning rate",
                "Accuracy by recipe and learning rate. " + "; ".join(
                    f"{name}: best at {rate[name]:g}" for name in cured) + ".",
                (heatmap(np.array([accuracy.mean(0) for accuracy in found.values()]), rows=list(found), columns=RATES,
                         x="learning rate", y="", value="accuracy"),),
                "Mean accuracy on the training samples. A network that broke, NaN, has 0.",
            ),
        ),
        text=describe_results(estimates, ratio, cured),
    )  # fmt: skip


SHOWN = ("sigmoid", "sigmoid + Xavier", "sigmoid + batch norm", "sigmoid + skip", "ReLU", "ReLU + He")


def describe_results(estimates: dict[str, float], ratio: dict[str, float], cured: list[str]) -> str:
    return (
        f"Thirty sigmoid layers get {estimates['sigmoid']:.0%} of their own training samples right: they have learnt "
        f"nothing, and the gradient of their first layer is {format_number(ratio['sigmoid'], 1)} times that of the "
        f"last. Recipes with which they learn (half of their samples or more): {', '.join(cured) or 'none'}. Well "
        f"(90% or more): {', '.join(name for name in cured if estimates[name] >= WELL) or 'none'}; the rest are only "
        "slower.\n\n"
        f"For sigmoid Xavier's start reaches {estimates['sigmoid + Xavier']:.0%}, clipping "
        f"{estimates['sigmoid + clipping']:.0%}, layer norm {estimates['sigmoid + layer norm']:.0%}, batch norm "
        f"{estimates['sigmoid + batch norm']:.0%}, skip connections {estimates['sigmoid + skip']:.0%}. Clipping only "
        f"ever shortens a gradient, so one that vanished stays so. Xavier's derivation takes a slope of 1 at "
        f"zero; the sigmoid's is a quarter.\n\n"
        f"ReLU from the usual start reaches {estimates['ReLU']:.0%}, from He's {estimates['ReLU + He']:.0%}: the "
        f"activation is one half of that cure and the start the other. Skip connections on top of He's start double "
        f"what is passed on at each layer, and reach {estimates['ReLU + He + skip']:.0%}; they need a smaller start or "
        f"a normalization. All remedies together: "
        f"{estimates['all together']:.0%}."
    )


@experiment_part("Exploding gradients, with and without clipping", GROWS, BREAKS, FINITE, CLIPPED_LEARNS)
def exploding(settings: Settings) -> Outcome:
    grad, epochs = checked_recipe_value_and_grad(settings), settings.steps(quick=6, full=20)
    rates, bounds = (0.001, 0.001, 0.03), (UNCLIPPED, 1.0, 1.0)
    seeds = settings.seeds_of(BREAKS)
    scaled = {scale: NetworkRecipe(fnn.relu, partial(format_times, scale)) for scale in SCALES}
    found = {
        scale: train_recipe(settings, recipe, seeds, grad, epochs, rates, bounds) for scale, recipe in scaled.items()
    }
    norms = {scale: cotangent_sizes(scaled[scale], settings.seeds_of(GROWS), settings.seed) for scale in SCALES}
    growth = {scale: (norm[:, 0] / norm[:, -1]) ** (1 / (DEPTH - 1)) for scale, norm in norms.items()}
    large = found[FOLDS]
    works = (large.accuracy[:, 0] > GUESSING) & large.finite[:, 0]
    clipped = {scale: some.accuracy[:, 1 + some.accuracy[:, 1:].mean(0).argmax()] for scale, some in found.items()}
    free = {scale: some.accuracy[:, 0] for scale, some in found.items()}
    results = (
        judge(GROWS, growth[FOLDS]),
        judge(BREAKS, ~works),
        judge(FINITE, large.finite[:, 1]),
        judge(CLIPPED_LEARNS, clipped[FOLDS]),
    )

    def curve(by_scale: dict[float, np.ndarray]) -> Curve:
        values = list(by_scale.values())
        return Curve(SCALES, [some.mean() for some in values], *np.transpose([interval(some) for some in values]))

    return Outcome(
        results,
        (
            Figure(
                "Accuracy by kernel scale, with and without clipping, and the gradient by hidden layer",
                f"Left: accuracy on the training samples by kernel scale. At He's scale {free[1.0].mean():.0%} without "
                f"and {clipped[1.0].mean():.0%} with clipping; at twice it {free[FOLDS].mean():.0%} and "
                f"{clipped[FOLDS].mean():.0%}. Right: the gradient by layer before any step; a layer multiplies it by "
                + ", ".join(f"{some.mean():.2f} at scale {scale:g}" for scale, some in growth.items()) + ".",
                (
                    lines({"no clipping": curve(free), "clipped to norm 1": curve(clipped)},
                          x="kernel scale (He's = 1)", y="accuracy on training samples", points=True),
                    lines({f"scale {scale:g}": Curve(np.arange(1, DEPTH + 1), np.median(norm, 0))
                           for scale, norm in norms.items()}, x="hidden layer", y="mean |∂L/∂output|", log="y"),
                ),
                "Thirty ReLU layers; means over seeds with 95% intervals; unclipped at rate 0.001, clipped at the "
                "better of 0.001 and 0.03.",
            ),
        ),
        text=(
            f"Kernels twice as large as He's multiply the gradient by {results[0].estimate:.2f} a layer, "
            f"{format_number(results[0].estimate ** (DEPTH - 1), 1)} over the network. Unclipped, "
            f"{results[1].estimate:.0%} of the networks end at NaN or no better than guessing. Clipped, "
            f"{results[2].estimate:.0%} keep a finite loss, and they reach "
            f"{results[3].estimate:.0%} of their training samples, where He's start reaches "
            f"{free[1.0].mean():.0%} without any clipping. Clipping bounds the step; it doesn't repair a forward pass "
            f"whose outputs are millions of times too large."
        ),
    )  # fmt: skip


def format_times(scale: float, generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return scale * he_normal(generator, shape)


EXPERIMENT = Experiment(
    name="remedies",
    order=8.3,
    title="Training failures of deep networks, and remedies",
    introduction="Thirty hidden layers of 32 units are trained on digits. We measure which remedies of the "
    "textbooks work alone, which only together with another, and what clipping does for gradients that explode.",
    parts=(remedies, exploding),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
