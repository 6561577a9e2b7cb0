"""The worked examples of a textbook chapter on neural networks, recomputed: what it prints beside what is true.

``python -m experiments.chapter`` works through them one after another, each with its steps, and counts at the end how
many of the printed figures are right. A figure is right where the true value, rounded to the digits that are
printed, is the same number.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import lax
from jaxtyping import Array
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

import funcnn as fnn
from experiments import chapter_examples as examples
from experiments.chapter_examples import Claim, Example, plain, show
from experiments.console import Settings, begin, console, save, table

BLUE, OCHRE, RED, GREY = "#1f4e79", "#c58b2a", "#a23b3b", "#555555"


@dataclass(frozen=True, kw_only=True)
class ChapterSettings(Settings):
    """The worked examples of a textbook chapter, recomputed."""

    epochs: int = 10_000
    """Epochs of the XOR network; the chapter's figures belong to 10,000."""


# XOR ------------------------------------------------------------------------------------------------------------------

XOR_NETWORK = fnn.mlp((2, 4, 1), activation=fnn.sigmoid, output=fnn.sigmoid)
XOR_STATE = ((),) * 4
XOR_LOSSES = {0: "0.277823", 2000: "0.125614", 4000: "0.015423", 6000: "0.004567", 8000: "0.002134"}
XOR_EPOCHS, XOR_PREDICTIONS = 10_000, "0.0312 0.9654 0.9678 0.0389"


class XorRun(NamedTuple):
    """A training: each epoch's loss, the last epoch's predictions of the four samples, the parameters after it."""

    losses: Array
    predictions: Array
    params: Any


def xor_data():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return x, jnp.array([[0.0], [1.0], [1.0], [0.0]])


def chapter_start():
    """The chapter draws its kernels from NumPy's old generator, seeded with 42."""
    draws = np.random.RandomState(42)
    hidden = fnn.LinearParams(jnp.array(draws.randn(2, 4) * 0.5), jnp.zeros(4))
    return hidden, (), fnn.LinearParams(jnp.array(draws.randn(4, 1) * 0.5), jnp.zeros(1)), ()


def chapter_loss(params, x, y):
    return fnn.mean_squared_error.forward(XOR_NETWORK.forward(params, XOR_STATE, x, train=True)[0], y)[0]


def chapter_gradient(params, x, y):
    """The chapter's backward pass: it begins with (a − y)/n where the loss mean((y − a)²) has 2 (a − y)/n."""
    hidden, _, output, _ = params
    z1, kept_hidden = fnn.linear_forward(hidden, x)
    a1, kept_a1 = fnn.sigmoid_forward(z1)
    z2, kept_output = fnn.linear_forward(output, a1)
    a2, kept_a2 = fnn.sigmoid_forward(z2)
    doutput, da1 = fnn.linear_backward(kept_output, fnn.sigmoid_backward(kept_a2, (a2 - y) / len(y)))
    dhidden, _ = fnn.linear_backward(kept_hidden, fnn.sigmoid_backward(kept_a1, da1))
    return dhidden, (), doutput, ()


def whole_gradient(grad, params, x, y):
    return grad(XOR_NETWORK, fnn.mean_squared_error)(params, XOR_STATE, (x, y))[1]


def half_gradient(grad, params, x, y):
    return jax.tree.map(lambda leaf: leaf / 2, whole_gradient(grad, params, x, y))


@partial(jax.jit, static_argnames=("gradient", "epochs"))
def train_as_the_chapter(gradient, params, x, y, *, epochs: int) -> XorRun:
    """Gradient descent on all four samples; as in the chapter, losses and predictions are those before the update."""
    optimizer = fnn.sgd(1.0)

    def epoch(carry, _):
        params, opt_state, _ = carry
        prediction = XOR_NETWORK.forward(params, XOR_STATE, x, train=True)[0]
        updates, opt_state = optimizer.update(gradient(params, x, y), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, prediction), chapter_loss(params, x, y)

    start = (params, optimizer.init(params), jnp.zeros_like(y))
    (params, _, predictions), losses = lax.scan(epoch, start, length=epochs)
    return XorRun(losses, predictions, params)


def train_with_the_whole_gradient(settings: Settings, x, y, params=None) -> XorRun:
    """The same network and learning rate by ``fnn.fit``; without parameters, from a start drawn from the seed."""
    trained = fnn.fit(
        XOR_NETWORK, fnn.mean_squared_error, fnn.sgd(1.0), (x, y), epochs=settings.epochs,
        key=jax.random.key(settings.seed), grad=settings.value_and_grad, params=params,
    )  # fmt: skip
    prediction = fnn.predict(XOR_NETWORK, trained.params, trained.state, x)
    return XorRun(trained.history.loss, prediction, trained.params)


def xor(settings: Settings) -> Example:
    x, y = xor_data()
    start, grad = chapter_start(), settings.value_and_grad
    theirs = fnn.check_gradients(chapter_loss, chapter_gradient, start, x, y)
    ours = fnn.check_gradients(chapter_loss, partial(whole_gradient, grad), start, x, y)
    gradient = chapter_gradient if settings.grad == "manual" else partial(half_gradient, grad)
    run = train_as_the_chapter(gradient, start, x, y, epochs=settings.epochs)
    whole, drawn = (train_with_the_whole_gradient(settings, x, y, params) for params in (start, None))

    board = f"""\
2 inputs → 4 hidden units (σ) → 1 output (σ), loss mean((y − a)²), learning rate 1, {settings.epochs:,} epochs
Is the chapter's backward pass the gradient of the loss that it prints?

{theirs}

And the whole gradient of that loss?

{ours}

So the learning rate 1 acts as ½. The run keeps the chapter's arithmetic as it is written.
predictions for 00 01 10 11:  {show(run.predictions.T)}"""
    losses = {epoch: run.losses[epoch] for epoch in XOR_LOSSES if epoch < settings.epochs}
    claims = [Claim(f"loss at epoch {epoch}", XOR_LOSSES[epoch], loss) for epoch, loss in losses.items()]
    if settings.epochs == XOR_EPOCHS:
        claims += [Claim("predictions", XOR_PREDICTIONS, run.predictions)]
        claims += [Claim("rounded", "0 1 1 0", run.predictions.round())]
    finding = (
        f"The chapter's net {learned(run, y)}. With the whole gradient the same start {learned(whole, y)}; "
        f"a start drawn from seed {settings.seed} {learned(drawn, y)}."
    )
    true = {
        "loss_at_epoch": {str(epoch): loss for epoch, loss in losses.items()},
        "predictions_in_last_epoch": run.predictions[:, 0],
    }
    runs = {
        "the chapter's code, half the gradient": (run, BLUE),
        "the same start, the whole gradient": (whole, OCHRE),
        f"start from seed {settings.seed}, the whole gradient": (drawn, RED),
    }
    return Example("xor", "XOR", board, tuple(claims), finding, plain(true), picture_xor(runs, run.params))


def learned(run: XorRun, y: Array, small: float = 0.01) -> str:
    """Whether a run learned XOR, and when its loss became small, in words."""
    below = np.flatnonzero(run.losses < small)
    when = f"loss below {small} from epoch {below[0]:,}" if below.size else f"loss still {float(run.losses[-1]):.4f}"
    all_right = float(fnn.binary_accuracy(run.predictions, y)) == 1
    return f"{'learns' if all_right else 'does not learn'} XOR ({when})"


def picture_xor(runs: dict[str, tuple[XorRun, str]], params) -> Figure:
    """The losses on a logarithmic axis with the printed ones, and what the chapter's net answers over the plane."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.4, 1))
    figure.suptitle("XOR: the losses that the chapter prints are not its network's", fontweight="bold")
    for label, (run, colour) in runs.items():
        left.semilogy(run.losses, color=colour, linewidth=1.8, label=label)
    left.semilogy(list(XOR_LOSSES), [float(loss) for loss in XOR_LOSSES.values()], "x", color=GREY, markersize=8,
                  markeredgewidth=2, label="printed in the chapter")  # fmt: skip
    left.set(xlabel="epoch", ylabel="mean squared error")
    left.grid(alpha=0.25)
    left.legend(frameon=False)
    left.spines[["top", "right"]].set_visible(False)

    side = np.linspace(-0.25, 1.25, 201)
    plane = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    answers = fnn.predict(XOR_NETWORK, params, XOR_STATE, plane).reshape(201, 201)
    colours = LinearSegmentedColormap.from_list("answers", ["#5f86ab", "#f6f3ec", "#d9ab5c"])
    shaded = right.imshow(answers, origin="lower", extent=(-0.25, 1.25, -0.25, 1.25), cmap=colours, vmin=0, vmax=1)
    right.contour(side, side, answers, levels=[0.5], colors=GREY, linewidths=1)
    for point, target in zip(*xor_data(), strict=True):
        right.text(*point, f"{target[0]:.0f}", ha="center", va="center", fontweight="bold",
                   bbox={"boxstyle": "circle", "facecolor": "white", "edgecolor": GREY})  # fmt: skip
    right.set(xlabel="first input", ylabel="second input", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    right.set_title("what its network answers; in the circles, the targets", fontsize="medium")
    figure.colorbar(shaded, ax=right, label="predicted probability of 1", ticks=[0, 0.25, 0.5, 0.75, 1])
    return figure


# Optimizers -----------------------------------------------------------------------------------------------------------

OPTIMIZERS = {"sgd": fnn.sgd(0.1), "momentum": fnn.momentum(0.1, 0.9), "adam": fnn.adam(0.1, 0.9, 0.999, 1e-8)}
PRINTED_STEPS = (1, 5, 10, 20)
PRINTED_LOSSES = {
    "sgd": ("13.6000", "2.1760", "0.0555", "0.0000"),
    "momentum": ("13.6000", "0.5432", "0.0034", "0.0000"),
    "adam": ("10.2345", "0.3456", "0.0012", "0.0000"),
}
PRINTED_ENDS = {
    "sgd": ("0.000033", "0.0046 0.0016"),
    "momentum": ("0.000001", "0.0008 0.0003"),
    "adam": ("0.000000", "0.0002 0.0001"),
}


def bowl(point):
    return point[0] ** 2 + 3 * point[1] ** 2


def bowl_gradient(point):
    return jnp.stack([2 * point[0], 6 * point[1]])


@partial(jax.jit, static_argnames=("optimizer", "gradient", "steps"))
def descend(optimizer, gradient, start, *, steps: int) -> Array:
    """The points of a descent from the start on, ``(steps + 1, 2)``."""

    def step(carry, _):
        point, opt_state = carry
        updates, opt_state = optimizer.update(gradient(point), opt_state, point)
        return (optax.apply_updates(point, updates), opt_state), point

    (end, _), points = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.concatenate([points, end[None]])


def optimizers(settings: Settings) -> Example:
    start = jnp.array([4.0, 3.0])
    gradient = bowl_gradient if settings.grad == "manual" else jax.grad(bowl)
    paths = {name: descend(optimizer, gradient, start, steps=20) for name, optimizer in OPTIMIZERS.items()}
    losses = {name: bowl(path.T) for name, path in paths.items()}
    ends = {name: float(loss[-1]) for name, loss in losses.items()}
    ranking = sorted(ends, key=ends.get)

    board = f"""\
f(x, y) = x² + 3 y² from (4, 3), slope (2x, 6y) = (8, 18), learning rate 0.1, momentum 0.9, 20 steps
the first step by hand
  sgd        (4 − 0.1·8, 3 − 0.1·18) = (3.2, 1.2),  f = 10.24 + 4.32 = {show(losses["sgd"][1])}
  momentum   no velocity yet, so the same,          f = {show(losses["momentum"][1])}
  adam       0.1 along each axis, to (3.9, 2.9),    f = 15.21 + 25.23 = {show(losses["adam"][1])}"""
    claims = [
        Claim(f"step {step:>2}, {name}", PRINTED_LOSSES[name][position], losses[name][step])
        for position, step in enumerate(PRINTED_STEPS)
        for name in OPTIMIZERS
    ]
    for name, (loss, point) in PRINTED_ENDS.items():
        claims += [Claim(f"end, {name}", loss, ends[name]), Claim("    its x and y", point, paths[name][-1])]
    finding = (
        f"From best to worst: {', '.join(ranking)}. The chapter says {', '.join(reversed(OPTIMIZERS))}, the reverse. "
        "A step of Adam is about as long as the learning rate, however steep the slope: 20 steps of 0.1 carry a "
        "coordinate 2 at most, and f no lower than 2² + 3·1² = 7. Momentum heaps up velocity, overshoots and swings."
    )
    true = {name: {"final_params": paths[name][-1], "losses": losses[name]} for name in OPTIMIZERS}
    return Example("optimizers", "Optimizers on x² + 3 y²", board, tuple(claims), finding, plain(true),
                   picture_optimizers(paths, losses))  # fmt: skip


def picture_optimizers(paths, losses) -> Figure:
    """The paths over the bowl's contours, and the losses with the printed ones on a logarithmic axis."""
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    figure.suptitle("At the same learning rate plain descent ends lowest and Adam highest", fontweight="bold")
    across, up = np.linspace(-4, 4.6, 200), np.linspace(-2.8, 3.5, 200)
    left.contour(across, up, bowl(np.meshgrid(across, up)), levels=range(1, 80, 7), colors="#c4c4c4", linewidths=0.8)
    left.plot(0, 0, "+", color="black", markersize=12)
    for name, colour in zip(OPTIMIZERS, (BLUE, OCHRE, RED), strict=True):
        line = {"color": colour, "markersize": 3.5, "linewidth": 1.4}
        left.plot(*paths[name].T, "o-", label=name, **line)
        left.plot(*paths[name][-1], "o", color=colour, markersize=10, markeredgecolor="white")
        right.semilogy(losses[name], "o-", **line)
        right.text(20.5, losses[name][-1], name, color=colour, va="center")
        # A logarithmic axis has no place for the zeros that are printed after 20 steps.
        printed = [float(loss) for loss in PRINTED_LOSSES[name][:-1]]
        right.semilogy(PRINTED_STEPS[:-1], printed, "x", color=colour, markersize=8, markeredgewidth=2)
    left.set(xlabel="x", ylabel="y", aspect="equal")
    left.set_title("20 steps from (4, 3) to the large dots", fontsize="medium")
    left.legend(loc="lower right", framealpha=1, edgecolor="white")
    right.plot([], [], "x", color=GREY, markersize=8, markeredgewidth=2, label="printed in the chapter")
    right.set(xlabel="step", ylabel="f = x² + 3 y²", xlim=(-0.7, 25.5), xticks=range(0, 21, 5))
    right.grid(alpha=0.25)
    right.legend(frameon=False, loc=(0.0, 0.14))
    right.spines[["top", "right"]].set_visible(False)
    return figure


# The board ------------------------------------------------------------------------------------------------------------


def work_through(settings: Settings) -> Iterator[Example]:
    yield examples.single_neuron()
    yield examples.activation_table()
    yield examples.forward_propagation()
    yield examples.backpropagation_step()
    yield xor(settings)
    yield optimizers(settings)
    yield examples.input_scaling()
    yield examples.softmax_reading()
    yield examples.mse_against_bce()
    yield examples.sigmoid_derivative_after_10_layers()


def put_on_the_board(example: Example, number: int, settings: Settings) -> None:
    console.print(f"\n[bold]{number}. {example.title}\n")
    console.print(example.board, markup=False, highlight=False, soft_wrap=True)
    if example.claims:
        compared = table("quantity", "the chapter prints", "true", "verdict")
        for claim in example.claims:
            compared.add_row(*claim.row())
        console.print(compared)
    console.print(f"→ {example.finding}", markup=False, highlight=False)
    if example.picture:
        save(example.picture, settings, f"chapter_{example.name}")


def summarise(worked: list[Example]) -> None:
    summary = table("example", "right", "wrong", title="The figures that the chapter prints")
    counts = np.array([example.count() for example in worked])
    for example, (right, wrong) in zip(worked, counts, strict=True):
        summary.add_row(example.title, str(right), str(wrong))
    summary.add_section()
    summary.add_row("all", *map(str, counts.sum(axis=0)), style="bold")
    console.print("", summary, sep="\n")


def run(settings: Settings) -> dict[str, Any]:
    """Work every example through on the board, and return the true figures by example."""
    begin("A chapter's worked examples", settings)
    worked = []
    for number, example in enumerate(work_through(settings), start=1):
        put_on_the_board(example, number, settings)
        worked.append(example)
    summarise(worked)
    return {example.name: example.true for example in worked if example.true}


if __name__ == "__main__":
    run(tyro.cli(ChapterSettings, prog="python -m experiments.chapter"))
