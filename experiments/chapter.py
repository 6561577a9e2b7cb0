"""The worked examples of a textbook chapter on neural networks, recomputed: printed and true figures.

``python -m experiments.chapter`` works through them one after another, each with its steps. A figure is right where
the true value, rounded to the digits that are printed, is the same number.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array

import funcnn as fnn
from experiments.harness.claims import Claim, Section, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Part,
    Settings,
    Table,
    checked_value_and_grad,
)
from experiments.harness.figures import Curve, Figure, lines
from experiments.harness.runner import run_command_line
from experiments.shared import chapter_examples as examples
from experiments.shared.chapter_examples import (
    XOR_LOSSES,
    Example,
    Printed,
    show,
    to_python,
    xor_initial_params,
)

WRONG_FIGURES = "printed figures that are wrong"


def printed_figures_claim(name: str, of_what: str, section: Section = Section.EXAMPLES) -> Claim:
    return Claim(
        name=f"printed-{name}", sentence=f"The figures printed for {of_what} are right.", section=section,
        quantity=WRONG_FIGURES, at_most=0, statistic="exact",
    )  # fmt: skip


NEURON = printed_figures_claim("neuron", "a single neuron")
TABLE = printed_figures_claim("activations", "the activations and their derivatives")
FORWARD = printed_figures_claim("forward", "forward propagation", Section.FORWARD)
BACKWARD = printed_figures_claim("backward", "a step of backpropagation", Section.BACKPROPAGATION)
XOR = printed_figures_claim("xor", "XOR")
XOR_GRADIENT = Claim(
    name="xor-gradient",
    sentence="The backward pass of the XOR program is the gradient of the loss that it prints.",
    section=Section.BACKPROPAGATION,
    quantity="relative difference between its gradient and the loss's",
    at_most=1e-9, statistic="exact",
)  # fmt: skip
OPTIMIZERS_PRINTED = printed_figures_claim("optimizers", "three optimizers on x² + 3 y²")
SOFTMAX = printed_figures_claim("softmax", "softmax of 2, 1 and 0.1")
TEN_SIGMOIDS = printed_figures_claim("sigmoids", "ten sigmoid derivatives multiplied", Section.MISTAKE_SIGMOID)

# XOR ------------------------------------------------------------------------------------------------------------------

XOR_NETWORK = fnn.mlp((2, 4, 1), activation=fnn.sigmoid, output=fnn.sigmoid)
XOR_STATE = ((),) * 4
XOR_EPOCHS, XOR_PREDICTIONS = 10_000, "0.0312 0.9654 0.9678 0.0389"


class XorRun(NamedTuple):
    """The loss of each epoch, the last epoch's predictions of the four samples, and the parameters after it."""

    losses: Array
    predictions: Array
    params: Any


def xor_data():
    x = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    return x, jnp.array([[0.0], [1.0], [1.0], [0.0]])


def chapter_loss(params, x, y):
    return fnn.mean_squared_error.forward(XOR_NETWORK.forward(params, XOR_STATE, x, train=True)[0], y)[0]


def chapter_gradient(params, x, y):
    """Compute the chapter's backward pass, which begins with (a − y)/n; the loss mean((y − a)²) has 2 (a − y)/n."""
    hidden, _, output, _ = params
    z1, kept_hidden = fnn.linear_forward(hidden, x)
    a1, kept_a1 = fnn.sigmoid_forward(z1)
    z2, kept_output = fnn.linear_forward(output, a1)
    a2, kept_a2 = fnn.sigmoid_forward(z2)
    doutput, da1 = fnn.linear_backward(kept_output, fnn.sigmoid_backward(kept_a2, (a2 - y) / len(y)))
    dhidden, _ = fnn.linear_backward(kept_hidden, fnn.sigmoid_backward(kept_a1, da1))
    return dhidden, (), doutput, ()


def full_gradient(grad, params, x, y):
    return grad(XOR_NETWORK, fnn.mean_squared_error)(params, XOR_STATE, (x, y))[1]


def half_gradient(grad, params, x, y):
    return jax.tree.map(lambda leaf: leaf / 2, full_gradient(grad, params, x, y))


@partial(jax.jit, static_argnames=("gradient", "epochs"))
def train_with_chapter_update(gradient, params, x, y, *, epochs: int) -> XorRun:
    """Train on all four samples. As in the chapter, losses and predictions are those before the update."""
    optimizer = fnn.sgd(1.0)

    def epoch(carry, _):
        params, opt_state, _ = carry
        prediction = XOR_NETWORK.forward(params, XOR_STATE, x, train=True)[0]
        updates, opt_state = optimizer.update(gradient(params, x, y), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, prediction), chapter_loss(params, x, y)

    start = (params, optimizer.init(params), jnp.zeros_like(y))
    (params, _, predictions), losses = lax.scan(epoch, start, length=epochs)
    return XorRun(losses, predictions, params)


def train_with_full_gradient(settings: Settings, x, y, params=None) -> XorRun:
    """Train the same network at the same rate by ``fnn.fit``; without parameters, from a start drawn from the seed."""
    trained = fnn.fit(
        XOR_NETWORK, fnn.mean_squared_error, fnn.sgd(1.0), (x, y), epochs=XOR_EPOCHS,
        key=jax.random.key(settings.seed), grad=settings.value_and_grad, params=params,
    )  # fmt: skip
    prediction = fnn.predict(XOR_NETWORK, trained.params, trained.state, x)
    return XorRun(trained.history.loss, prediction, trained.params)


class XorExample(NamedTuple):
    """The example, its runs for the figure, and the gradient's relative difference."""

    example: Example
    runs: dict[str, XorRun]
    difference: float


def xor_example(settings: Settings) -> XorExample:
    x, y = xor_data()
    start, grad = xor_initial_params(), settings.value_and_grad
    theirs = fnn.check_gradients(chapter_loss, chapter_gradient, start, x, y)
    gradient = chapter_gradient if settings.grad == "manual" else partial(half_gradient, grad)
    run = train_with_chapter_update(gradient, start, x, y, epochs=XOR_EPOCHS)
    whole, drawn = (train_with_full_gradient(settings, x, y, params) for params in (start, None))

    board = f"""\
2 inputs → 4 hidden units (σ) → 1 output (σ), loss mean((y − a)²), learning rate 1, {XOR_EPOCHS:,} epochs
The chapter's backward pass against the gradient of the loss that it prints:

{theirs}

The learning rate 1 therefore acts as ½. The run keeps the chapter's arithmetic as it is written.
predictions for 00 01 10 11:  {show(run.predictions.T)}"""
    printed = [Printed(f"loss at epoch {epoch}", loss, run.losses[epoch]) for epoch, loss in XOR_LOSSES.items()]
    printed += [Printed("predictions", XOR_PREDICTIONS, run.predictions)]
    printed += [Printed("rounded", "0 1 1 0", run.predictions.round())]
    conclusion = (
        f"The chapter's net {describe_learning(run, y)}. With the whole gradient the same start "
        f"{describe_learning(whole, y)}; a start drawn from seed {settings.seed} {describe_learning(drawn, y)}."
    )
    true = {
        "loss_at_epoch": {str(epoch): run.losses[epoch] for epoch in XOR_LOSSES},
        "predictions_in_last_epoch": run.predictions[:, 0],
    }
    runs = {
        "the chapter's code, half the gradient": run,
        "the same start, the whole gradient": whole,
        f"start from seed {settings.seed}, the whole gradient": drawn,
    }
    example = Example("XOR", board, tuple(printed), conclusion, to_python(true))
    return XorExample(example, runs, max(leaf.relative_difference for leaf in theirs.leaves))


def describe_learning(run: XorRun, y: Array, small: float = 0.01) -> str:
    """Describe whether a run learned XOR, and when its loss became small."""
    below = np.flatnonzero(run.losses < small)
    when = f"loss below {small} from epoch {below[0]:,}" if below.size else f"loss still {float(run.losses[-1]):.4f}"
    all_right = float(fnn.binary_accuracy(run.predictions, y)) == 1
    return f"{'learns' if all_right else 'does not learn'} XOR ({when})"


def xor_figure(runs: dict[str, XorRun]) -> Figure:
    epochs = np.arange(1, XOR_EPOCHS + 1)
    curves = {name: Curve(epochs, run.losses) for name, run in runs.items()}
    curves["printed in the chapter"] = Curve(
        np.array(list(XOR_LOSSES)) + 1, [float(one) for one in XOR_LOSSES.values()]
    )
    return Figure(
        "Loss of the XOR network by epoch, beside the printed losses",
        "The loss of the XOR network by epoch on a logarithmic axis. "
        + " ".join(f"{name}: {float(run.losses[-1]):.5f} after {XOR_EPOCHS:,} epochs." for name, run in runs.items())
        + f" The chapter prints {XOR_LOSSES[8000]} at epoch 8,000.",
        (lines(curves, x="epoch", y="mean squared error", log="xy"),),
        "Gradient descent on all four samples from the chapter's own starting kernels, learning rate 1.",
    )


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
    """Return the points of a descent, the start included, ``(steps + 1, 2)``."""

    def step(carry, _):
        point, opt_state = carry
        updates, opt_state = optimizer.update(gradient(point), opt_state, point)
        return (optax.apply_updates(point, updates), opt_state), point

    (end, _), points = lax.scan(step, (start, optimizer.init(start)), length=steps)
    return jnp.concatenate([points, end[None]])


def optimizers_example(settings: Settings) -> Example:
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
    printed = [
        Printed(f"step {step}, {name}", PRINTED_LOSSES[name][position], losses[name][step])
        for position, step in enumerate(PRINTED_STEPS)
        for name in OPTIMIZERS
    ]
    for name, (loss, point) in PRINTED_ENDS.items():
        printed += [
            Printed(f"end, {name}", loss, ends[name]),
            Printed(f"x and y, {name}", point, paths[name][-1]),
        ]
    conclusion = (
        f"From best to worst: {', '.join(ranking)}. The chapter says {', '.join(reversed(OPTIMIZERS))}, the reverse. "
        "A step of Adam is about as long as the learning rate, however steep the slope: 20 steps of 0.1 carry a "
        "coordinate 2 at most, and f no lower than 2² + 3·1² = 7. Momentum overshoots and oscillates."
    )
    true = {name: {"final_params": paths[name][-1], "losses": losses[name]} for name in OPTIMIZERS}
    return Example("Optimizers on x² + 3 y²", board, tuple(printed), conclusion, to_python(true))


# The parts ------------------------------------------------------------------------------------------------------------


def example_outcome(example: Example, claim: Claim | None = None) -> Outcome:
    """Return an example's outcome: its steps, the printed beside the true figures, and the verdict."""
    rows = [
        (
            printed.quantity,
            " ".join(one.printed for one in found),
            " ".join(one.true for one in found),
            describe_comparisons(found),
        )
        for printed in example.printed
        for found in [printed.comparisons()]
    ]
    beside = Table("Printed and true figures", ("quantity", "printed", "true", "verdict"), tuple(rows))
    results = (judge(claim, example.count_wrong()),) if claim else ()
    return Outcome(results, tables=(beside,) if rows else (), text=example.conclusion, board=example.board)


def describe_comparisons(found: list[examples.Comparison]) -> str:
    wrong = sum(not one.right for one in found)
    return "right" if not wrong else "wrong" if len(found) == 1 else f"{wrong} of {len(found)} wrong"


def example_part(title: str, work: Callable[[], Example], claim: Claim | None = None) -> Part:
    return Part(title, (claim,) if claim else (), lambda settings: example_outcome(work(), claim))


def xor_part(settings: Settings) -> Outcome:
    x, y = xor_data()
    checked_value_and_grad(settings, XOR_NETWORK, fnn.mean_squared_error, fnn.Batch(x, y))
    found = xor_example(settings)
    outcome = example_outcome(found.example, XOR)
    remark = "It begins with a − y where the derivative of (y − a)² is 2 (a − y): half the gradient, in every leaf."
    results = (*outcome.results, judge(XOR_GRADIENT, found.difference, remark))
    return outcome._replace(results=results, figures=(xor_figure(found.runs),))


def optimizers_part(settings: Settings) -> Outcome:
    return example_outcome(optimizers_example(settings), OPTIMIZERS_PRINTED)


PARTS = (
    example_part("A single neuron", examples.single_neuron, NEURON),
    example_part("Activations and their derivatives", examples.activation_table, TABLE),
    example_part("Forward propagation", examples.forward_propagation, FORWARD),
    example_part("One step of backpropagation", examples.backpropagation_step, BACKWARD),
    Part("XOR", (XOR, XOR_GRADIENT), xor_part),
    Part("Optimizers on x² + 3 y²", (OPTIMIZERS_PRINTED,), optimizers_part),
    example_part("Input scaling", examples.input_scaling),
    example_part("Softmax: one class, not three answers", examples.softmax_reading, SOFTMAX),
    example_part("Squared error beside cross-entropy", examples.mse_against_bce),
    example_part("Ten sigmoids deep", examples.sigmoid_derivative_after_10_layers, TEN_SIGMOIDS),
)

EXPERIMENT = Experiment(
    name="chapter",
    order=0,
    title="Errata: the worked examples recomputed",
    introduction=(
        "The chapter works ten examples and prints the figures of most. Each is worked here again, in float64, by the "
        "layers and losses of funcnn; a printed figure is right where the true one, rounded to as many digits, is the "
        "same number."
    ),
    parts=PARTS,
    precision="float64",
)


def true_figures(settings: Settings) -> dict[str, Any]:
    """Return the true figures of every example that has some, by its name."""
    worked = {
        "single_neuron": examples.single_neuron(),
        "activation_table": examples.activation_table(),
        "forward_propagation": examples.forward_propagation(),
        "backpropagation_step": examples.backpropagation_step(),
        "xor": xor_example(settings).example,
        "optimizers": optimizers_example(settings),
        "input_scaling": examples.input_scaling(),
        "mse_against_bce": examples.mse_against_bce(),
        "sigmoid_derivative_after_10_layers": examples.sigmoid_derivative_after_10_layers(),
    }
    return {name: example.true for name, example in worked.items()}


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
