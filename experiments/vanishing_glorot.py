"""Glorot and Bengio 2010: five layers of a thousand tanh units under two initializations, before their first step.

We measure ∂L/∂z, the cotangent of a layer's pre-activations. The kernels' gradients don't show that it vanishes, which
is one of the claims.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn.initializers import variance_scaling
from PIL import Image, ImageDraw

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
from experiments.harness.figures import Curve, Figure, Panel, lines
from experiments.harness.runner import run_command_line

START = {
    "section": Section.VANISHING, "source": "Glorot and Bengio 2010, section 4.2", "seeds": 60, "quick_seeds": 2,
}  # fmt: skip

JACOBIAN_STANDARD = Claim(
    **START, name="jacobian-standard", at_least=0.45, at_most=0.55,
    sentence="With U[−1/√n, 1/√n] a layer's Jacobian has a mean singular value of about 0.5.",
    quantity="mean singular value of ∂aᵢ₊₁/∂aᵢ, the hidden layers' activations, over layers 1 to 4, at one image",
)  # fmt: skip
JACOBIAN_NORMALIZED = Claim(
    **START, name="jacobian-normalized", at_least=0.75, at_most=0.85,
    sentence="With the normalized initialization (Xavier) that value is about 0.8.",
    quantity="mean singular value of ∂aᵢ₊₁/∂aᵢ, the hidden layers' activations, over layers 1 to 4, at one image",
)  # fmt: skip
COTANGENTS_SHRINK = Claim(
    **START, name="cotangents-shrink", at_most=0.5,
    sentence="With U[−1/√n, 1/√n] five layers at least halve the gradient on its way down.",
    quantity="standard deviation of ∂L/∂z in the first hidden layer by that in the fifth",
)  # fmt: skip
COTANGENTS_KEEP = Claim(
    **START, name="cotangents-keep", at_least=0.5, at_most=2,
    sentence="With the normalized initialization they keep it within a factor of two.",
    quantity="standard deviation of ∂L/∂z in the first hidden layer by that in the fifth",
)  # fmt: skip
KERNELS_HIDE = Claim(
    **START, name="kernels-hide", at_least=0.5, at_most=2,
    sentence="Yet the kernels' gradients are of one size in all layers, so they hide the vanishing.",
    quantity="standard deviation of ∂L/∂K in the second hidden layer by that in the fifth, with U[−1/√n, 1/√n]",
)  # fmt: skip
STANDARD = variance_scaling(1 / 3, "fan_in", "uniform")
NORMALIZED = variance_scaling(1, "fan_avg", "uniform")

SIDE, HIDDEN, WIDTH = 32, 5, 1000
NO_STATE = (((), ()),) * HIDDEN + ((),)
CONFIGURATIONS = [(0,), (1,), (2,), (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]


def shape_images(random: np.random.Generator, count: int) -> fnn.Batch:
    """After Shapeset-3×2: a triangle, parallelogram or ellipse, or two, of random form, place and grey; nine classes.

    The second hides at most half of the first.
    """
    labels = random.integers(len(CONFIGURATIONS), size=count)
    images = np.zeros((count, SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        image[:] = random.uniform()
        below = np.zeros((SIDE, SIDE), bool)
        for kind in CONFIGURATIONS[label]:
            mask = draw_shape(random, kind)
            while (mask & below).sum() > below.sum() / 2:
                mask = draw_shape(random, kind)
            image[mask] = random.uniform()
            below = mask
    return fnn.Batch(jnp.asarray(images.reshape(count, -1)), jnp.asarray(labels))


def draw_shape(random: np.random.Generator, kind: int) -> np.ndarray:
    """Where one shape lies: corners turned about a random centre."""
    angles = np.linspace(0, 2 * np.pi, 33)[:-1]
    outlines = [
        np.stack([np.cos([0, 2.1, 4.2]), np.sin([0, 2.1, 4.2])], 1) * random.uniform(0.7, 1.3, (3, 1)),
        np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) @ [[0.8, 0], [random.uniform(-0.5, 0.5), 0.8]],
        np.stack([np.cos(angles), random.uniform(0.4, 1) * np.sin(angles)], 1),
    ]
    turn, size, centre = random.uniform(0, 2 * np.pi), random.uniform(4, 9), random.uniform(9, SIDE - 9, 2)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    canvas = Image.new("1", (SIDE, SIDE))
    ImageDraw.Draw(canvas).polygon([tuple(corner) for corner in size * outlines[kind] @ rotation + centre], fill=1)
    return np.array(canvas)


def tanh_blocks(kernel_init) -> tuple[fnn.Layer, ...]:
    first = fnn.serial(fnn.linear(SIDE**2, WIDTH, kernel_init), fnn.tanh)
    others = [fnn.serial(fnn.linear(WIDTH, WIDTH, kernel_init), fnn.tanh)] * (HIDDEN - 1)
    return first, *others, fnn.linear(WIDTH, len(CONFIGURATIONS), kernel_init)


@jax.jit
def initial_statistics(params, batch: fnn.Batch):
    """Of every hidden layer its activations, ∂L/∂z and ∂L/∂K, and the Jacobians from 1 to 2 and from 4 to 5."""
    blocks = tanh_blocks(STANDARD)
    model = fnn.serial(*blocks)
    prediction, _, residuals = model.forward(params, NO_STATE, batch.x, train=True)
    loss, loss_residuals = fnn.softmax_cross_entropy.forward(prediction, batch.y)
    dy = fnn.softmax_cross_entropy.backward(loss_residuals, jnp.ones_like(loss))
    activations, cotangents, kernels, jacobians = [], [], [], []
    _, dy = blocks[-1].backward(residuals[-1], dy)
    for layer in reversed(range(HIDDEN)):
        linear_kept, tanh_kept = residuals[layer]
        (dlinear, _), dx = blocks[layer].backward(residuals[layer], dy)
        activations.append(tanh_kept)
        cotangents.append(fnn.tanh.backward(tanh_kept, dy)[1])
        kernels.append(dlinear.kernel)
        if layer > 0:
            one_image = (linear_kept._replace(x=linear_kept.x[:1]), tanh_kept[:1])
            unit = jax.vmap(lambda dy, block=blocks[layer], kept=one_image: block.backward(kept, dy[None])[1][0])
            jacobians.append(unit(jnp.eye(WIDTH)))
        dy = dx
    return activations[::-1], jnp.stack(cotangents[::-1]), kernels[::-1], jacobians[::-1]


def mean_singular_value(matrix: jax.Array) -> float:
    # From the eigenvalues of MMᵀ, four times as fast; single precision is right to four digits of the mean.
    squares = np.linalg.eigvalsh(np.asarray(matrix @ matrix.T, np.float32))
    return float(np.sqrt(squares.clip(0)).mean())


def histogram_curves(layers: dict[str, np.ndarray], x: str, subtitle: str) -> Panel:
    """The histograms of the layers on common bins, as curves."""
    edges = np.histogram_bin_edges(np.concatenate([values.ravel() for values in layers.values()]), 81)
    middles = (edges[:-1] + edges[1:]) / 2
    curves = {name: Curve(middles, np.histogram(values, edges)[0] / values.size) for name, values in layers.items()}
    return lines(curves, x=x, y="share", subtitle=subtitle)


@experiment_part(
    "Five layers of a thousand units, before the first step", JACOBIAN_STANDARD, JACOBIAN_NORMALIZED,
    COTANGENTS_SHRINK, COTANGENTS_KEEP, KERNELS_HIDE,
)  # fmt: skip
def glorot(settings: Settings) -> Outcome:
    narrow = fnn.mlp((5, 4, 4, 3), fnn.tanh, kernel_init=NORMALIZED)
    few = fnn.Batch(jax.random.normal(jax.random.key(1), (4, 5)), jnp.arange(4) % 3)
    checked_value_and_grad(settings, narrow, fnn.softmax_cross_entropy, few)
    kernel_inits = {"standard": STANDARD, "normalized": NORMALIZED}
    random = np.random.default_rng(settings.seed)
    found = {"standard": [], "normalized": []}
    shown = {}
    for key in settings.keys_of(JACOBIAN_STANDARD):
        batch = shape_images(random, 100)
        for name, kernel_init in kernel_inits.items():
            params, _ = fnn.serial(*tanh_blocks(kernel_init)).init(key)
            activations, cotangents, kernels, jacobians = initial_statistics(params, batch)
            found[name].append({
                "jacobian": [mean_singular_value(jacobian) for jacobian in jacobians],
                "cotangent": [float(layer.std()) for layer in cotangents],
                "kernel": [float(layer.std()) for layer in kernels],
            })  # fmt: skip
            shown[name] = [
                {f"layer {i + 1}": np.asarray(layers[i])[:20] for i in (0, 1, 2, 3, 4)}
                for layers in (activations, cotangents)
            ]

    def by_seed(name, what):
        return np.array([seed[what] for seed in found[name]])

    jacobian = {name: by_seed(name, "jacobian") for name in found}
    spread = {name: by_seed(name, "cotangent") for name in found}
    kernel = by_seed("standard", "kernel")
    inputs = jax.random.normal(jax.random.key(settings.seed), batch.x.shape)
    on_normal = {}
    for name, kernel_init in kernel_inits.items():
        params, _ = fnn.serial(*tanh_blocks(kernel_init)).init(jax.random.key(settings.seed))
        matrices = initial_statistics(params, fnn.Batch(inputs, batch.y))[-1]
        on_normal[name] = np.mean([mean_singular_value(matrix) for matrix in matrices])
    # Of a random n × n matrix whose entries have variance s²/n: 8s/3π.
    bare = {"standard": 8 / (3 * np.pi) / 3**0.5, "normalized": 8 / (3 * np.pi)}
    by_layer = {name: jacobian[name].mean(0) for name in found}
    numbers = np.arange(1, HIDDEN + 1)
    results = (
        judge(JACOBIAN_STANDARD, jacobian["standard"].mean(1),
              f"The paper's 0.5 is missed by {abs(jacobian['standard'].mean() - 0.5):.3f}. The kernel alone, without "
              f"tanh's derivative, would give {bare['standard']:.3f}."),
        judge(JACOBIAN_NORMALIZED, jacobian["normalized"].mean(1),
              f"The paper's 0.8 is missed by {abs(jacobian['normalized'].mean() - 0.8):.3f}. The kernel alone would "
              f"give {bare['normalized']:.3f}, the network on inputs from N(0, 1) {on_normal['normalized']:.3f}: the "
              f"larger the inputs, the smaller tanh's derivative."),
        judge(COTANGENTS_SHRINK, spread["standard"][:, 0] / spread["standard"][:, -1]),
        judge(COTANGENTS_KEEP, spread["normalized"][:, 0] / spread["normalized"][:, -1]),
        judge(KERNELS_HIDE, kernel[:, 1] / kernel[:, -1]),
    )  # fmt: skip
    shrink, keep = results[2].estimate, results[3].estimate
    figures = (
        Figure(
            title="Activations of each layer, standard and normalized initialization",
            alternative=f"Histograms of the five layers' activations. Under U[−1/√n, 1/√n] they narrow layer by layer, "
            f"to a spread of {shown['standard'][0]['layer 5'].std():.2f}; under the normalized initialization the "
            f"fifth layer's is {shown['normalized'][0]['layer 5'].std():.2f}.",
            panels=tuple(histogram_curves(shown[name][0], "activation", name) for name in shown),
            caption="Twenty images through 5 × 1,000 tanh units before training. Paper: figure 6.",
        ),
        Figure(
            title="Cotangents of each layer, standard and normalized initialization",
            alternative=f"Histograms of the five layers' ∂L/∂z. Under U[−1/√n, 1/√n] those of the first layer have "
            f"{shrink:.2f} times the spread of the fifth's; under the normalized initialization {keep:.2f} times.",
            panels=tuple(histogram_curves(shown[name][1], "∂L/∂z", name) for name in shown),
            caption="The same networks' cotangents. Paper: figure 7.",
        ),
        Figure(
            title="Spread of the cotangents and of the kernels' gradients by layer",
            alternative=f"Standard deviation by layer under U[−1/√n, 1/√n], each by that of the fifth layer. ∂L/∂z "
            f"falls to {shrink:.2f} in the first layer; ∂L/∂K is still {kernel[:, 1].mean() / kernel[:, -1].mean():.2f}"
            f" in the second.",
            panels=(lines(
                {"∂L/∂z": Curve(numbers, (spread["standard"] / spread["standard"][:, -1:]).mean(0)),
                 "∂L/∂K": Curve(numbers[1:], (kernel / kernel[:, -1:]).mean(0)[1:])},
                x="hidden layer", y="spread, by the fifth layer's", points=True, log="y"),),
            caption="A kernel's gradient is the product of an activation, which shrinks upwards, and a cotangent, "
            "which shrinks downwards: the two cancel. The first kernel sees images and is left out. Paper: figure 8.",
        ),
    )  # fmt: skip
    table = Table(
        "Mean singular value of the Jacobian from a hidden layer to the next",
        ("initialization", "1 → 2", "2 → 3", "3 → 4", "4 → 5", "mean", "paper", "kernel alone", "inputs N(0, 1)"),
        tuple((name, *(f"{value:.3f}" for value in (*by_layer[name], jacobian[name].mean())), paper,
               f"{bare[name]:.3f}", f"{on_normal[name]:.3f}")
              for name, paper in (("standard", "0.5"), ("normalized", "0.8"))),
        "A random n × n matrix with entries of variance s²/n has a mean singular value of 8s/3π = 0.849 s; s² is 1/3 "
        "for the standard and 1 for the normalized initialization. tanh's derivative takes off the rest.",
    )  # fmt: skip
    text = f"""Glorot and Bengio report mean singular values of about 0.5 and 0.8; here they are
{jacobian["standard"].mean():.3f} and {jacobian["normalized"].mean():.3f}. The Jacobian is that of the activations of a
hidden layer by those of the one below, tanh's derivative included, at one image a seed. The images are our own after
the paper's description of Shapeset-3×2, with pixels in [0, 1].

A standard layer halves the gradient, and four of them leave {shrink:.2f} of it. The kernels' gradients don't show
this."""
    return Outcome(results, figures, (table,), text)


EXPERIMENT = Experiment(
    name="vanishing_glorot",
    order=8.2,
    title="Glorot and Bengio's five layers of a thousand units",
    introduction="""Glorot and Bengio looked into deep networks before their first step and saw the gradient fade from
layer to layer under the initialization that everyone used, U[−1/√n, 1/√n]. They derived another,
U[±√6/√(n_in + n_out)], now known as Xavier's. Here are their networks again, 5 × 1,000 tanh units on images of one or
two shapes, with the figures that they report.""",
    parts=(glorot,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
