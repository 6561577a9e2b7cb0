"""Approximation by one hidden layer: the effect of width, and of trained against random units.

``python -m experiments.approximation`` fits known functions without noise, so that what is left is the error of the
approximation: a smooth wave, one with kinks and one with jumps, on a line and in eight dimensions.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array
from joblib import Parallel, delayed
from scipy import linalg
from threadpoolctl import threadpool_limits

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, judge
from experiments.harness.experiment import Experiment, ExperimentResult, Outcome, Settings, experiment_part
from experiments.harness.figures import Curve, Figure, Panel, lines
from experiments.harness.runner import run_command_line
from experiments.shared.function_fitting import (
    HALF_WIDTH,
    UNEXPLAINED,
    adam_cosine_decay,
    checked_mlp_value_and_grad,
    index_tree,
    sine_wave,
    stack_trees,
    triangle_wave,
    unexplained_share,
)
from experiments.shared.initialization import he_mlp_params

BARRON = "Barron, Universal approximation bounds for superpositions of a sigmoidal function, 1993"
LINE = Claim(
    name="continuous_on_a_line",
    sentence="On a line, 1,024 trained units follow smooth and kinked waves to 1% of their variance.",
    section=Section.WHY_APPROXIMATION,
    quantity=f"the worse of the two: {UNEXPLAINED}",
    at_most=0.01,
    seeds=20,
    quick_seeds=3,
)
SPACE = Claim(
    name="continuous_in_space",
    sentence="In eight dimensions, 1,024 trained units follow smooth and kinked waves to 1% of their variance.",
    section=Section.WHY_APPROXIMATION,
    quantity=f"the worse of the two: {UNEXPLAINED}",
    at_most=0.01,
    seeds=20,
    quick_seeds=3,
)
JUMP = Claim(
    name="jump_stays",
    sentence="Beside a jump the largest error stays near half the jump, even with 1,024 units.",
    section=Section.WHY_APPROXIMATION,
    quantity="largest error on a fine grid of the line, in heights of the jump",
    at_least=0.45,
    seeds=20,
    quick_seeds=3,
)
BARRON_LINE = Claim(
    name="barron_on_a_line",
    sentence="On a line, a trained network's squared error falls at least as fast as 1/units.",
    section=Section.WHY_APPROXIMATION,
    source=BARRON,
    quantity="slope of log squared error over log units, 1 to 1,024, smooth wave",
    at_most=-1,
    seeds=20,
    quick_seeds=3,
)
BARRON_SPACE = Claim(
    name="barron_in_space",
    sentence="In eight dimensions, a trained network's squared error falls at least as fast as 1/units.",
    section=Section.WHY_APPROXIMATION,
    source=BARRON,
    quantity="slope of log squared error over log units, 1 to 1,024, smooth wave",
    at_most=-1,
    seeds=20,
    quick_seeds=3,
)
RANDOM_SPACE = Claim(
    name="trained_beat_random",
    sentence="In eight dimensions, trained hidden units are better than as many random ones.",
    section=Section.WHY_APPROXIMATION,
    source=BARRON,
    quantity="factor between the squared errors, random to trained, mean over 16 to 1,024 units in log10",
    at_least=0,
    seeds=20,
    quick_seeds=3,
)
RANDOM_LINE = Claim(
    name="random_suffice_on_a_line",
    sentence="On a line nothing needs to be trained but the output: random hidden units do as well.",
    section=Section.WHY_APPROXIMATION,
    source=BARRON,
    quantity="factor between the squared errors, random to trained, mean over 16 to 1,024 units in log10",
    at_most=0,
    seeds=20,
    quick_seeds=3,
)
WIDTHS = (1, 4, 16, 64, 256, 1024)
DIMENSIONS = 8
# Targets --------------------------------------------------------------------------------------------------------------


def square_wave(t, frequency):
    return np.where(np.sin(frequency * t) < 0, -1, 1)


TARGETS = {"smooth": sine_wave, "kinked": triangle_wave, "jumps": square_wave}


class Task(NamedTuple):
    """Points ``(points, 8)`` and the three targets there, ``(3, points)``; on a line all coordinates but one are 0."""

    x: np.ndarray
    y: np.ndarray


def line_task(rng: np.random.Generator, points: int) -> Task:
    t = rng.uniform(-HALF_WIDTH, HALF_WIDTH, points)
    return Task(np.pad(t[:, None], ((0, 0), (0, DIMENSIONS - 1))), np.stack([f(t, 3) for f in TARGETS.values()]))


def space_task(rng: np.random.Generator, points: int) -> Task:
    """Return sums of waves along three random orthogonal directions: f(x) = Σᵢ g(uᵢ · x)/√3."""
    x = rng.uniform(-HALF_WIDTH, HALF_WIDTH, (points, DIMENSIONS))
    directions, _ = np.linalg.qr(rng.normal(size=(DIMENSIONS, 3)))
    return Task(x, np.stack([f(x @ directions, 1.5).sum(axis=1) / 3**0.5 for f in TARGETS.values()]))


# Networks of all widths, side by side ---------------------------------------------------------------------------------

OWNER = np.repeat(np.arange(len(WIDTHS)), WIDTHS)
BLOCKS = (OWNER[:, None] == np.arange(len(WIDTHS))).astype(np.float32)
MODEL = fnn.mlp((DIMENSIONS, sum(WIDTHS), len(WIDTHS)))
HIDDEN = fnn.serial(fnn.linear(DIMENSIONS, sum(WIDTHS)), fnn.relu)


def block_initial_params(rng: np.random.Generator, dimensions: int):
    """Return six networks as one: each output sees the hidden units of its own network, all other weights are 0.

    Directions and offsets of the hidden units are both random. (With offsets that start at 0, as usual, every ReLU has
    its kink at 0: on a line, all random features would be two.)
    """
    params = he_mlp_params(rng, (DIMENSIONS, len(OWNER), len(WIDTHS)), bias=1.0)
    hidden, _, output = jax.tree.map(np.asarray, params)
    inputs = np.arange(DIMENSIONS) < dimensions
    hidden = hidden._replace(kernel=hidden.kernel * inputs[:, None] * np.sqrt(DIMENSIONS / dimensions))
    return hidden, (), fnn.LinearParams(BLOCKS * rng.normal(size=BLOCKS.shape) / np.sqrt(WIDTHS), output.bias)


def mask_to_blocks(updates, params):
    hidden, activation, output = updates
    return hidden, activation, output._replace(kernel=output.kernel * BLOCKS)


def train_widths(key: Array, params, x: Array, y: Array, *, grad: Callable):
    optimizer = optax.chain(adam_cosine_decay(0.01, len(x) // 32), optax.stateless(mask_to_blocks))
    targets = jnp.tile(y[:, None], (1, len(WIDTHS)))
    return fnn.train(MODEL, fnn.mean_squared_error, optimizer, (x, targets), epochs=1, batch_size=32, key=key,
                     grad=grad, params=params, state=((),) * 3).params  # fmt: skip


def refit_output_layer(features: np.ndarray, y: np.ndarray, new_features: np.ndarray, new_y: np.ndarray) -> np.ndarray:
    """Return the unexplained share of targets ``(points, targets)`` with a least-squares output layer, by width."""
    features, new_features = (np.asarray(some, float) for some in (features, new_features))
    middle, level = features.mean(axis=0), y.mean(axis=0)
    features, new_features = features - middle, new_features - middle
    shares = []
    for network in range(len(WIDTHS)):
        own = features[:, network == OWNER]
        gram = own.T @ own + 1e-10 * len(own) * np.eye(own.shape[1])
        weights = linalg.solve(gram, own.T @ (y - level), assume_a="pos", overwrite_a=True)
        shares.append(unexplained_share((new_features[:, network == OWNER] @ weights + level).T, new_y.T))
    return np.array(shares)


class Errors(NamedTuple):
    """Unexplained shares ``(spaces, seeds, targets, widths)``; spaces are the line and eight dimensions.

    ``refitted`` are trained hidden units whose output layer is fitted again by least squares, for the smooth wave.
    """

    trained: np.ndarray
    random: np.ndarray
    refitted: np.ndarray
    beside_jump: np.ndarray
    drawn_curves: dict[str, np.ndarray]


def measure_widths(settings: Settings, grad: Callable) -> Errors:
    """Train all widths on all targets at once, and fit output layers to random and to trained hidden units."""
    keys, new, fitted = settings.keys_of(LINE), 2048, settings.steps(quick=2048, full=4096)
    samples = settings.steps(quick=2**15, full=2**16)  # each is seen once: none can be memorized
    rngs = [[np.random.default_rng((settings.seed, seed, space)) for seed in range(len(keys))] for space in (1, 2)]
    starts = stack_trees(
        stack_trees(block_initial_params(r, d) for r in row) for row, d in zip(rngs, (1, DIMENSIONS), strict=True)
    )
    x, y = stack_trees(
        stack_trees(task(r, new + samples) for r in row)
        for row, task in zip(rngs, (line_task, space_task), strict=True)
    )

    def train_and_judge(key, start, x, y):
        params = train_widths(key, start, x[new:], y[new:], grad=grad)
        predicted = fnn.predict(MODEL, params, ((),) * 3, x[:new])
        return params, unexplained_share(predicted.T, y[None, :new])

    @jax.jit
    def features(params, x):
        return fnn.predict(HIDDEN, params[:2], ((), ()), x)

    def by_least_squares(params, space, seed, targets):
        found = np.asarray(features(index_tree(params, space, seed), x[space, seed]))
        wanted = np.asarray(y[space, seed, targets].T, float)
        old = slice(new, new + fitted)
        return refit_output_layer(found[old], wanted[old], found[:new], wanted[:new]).T

    over_targets = jax.vmap(train_and_judge, (None, None, None, 0))
    over_spaces = jax.vmap(jax.vmap(over_targets), (None, 0, 0, 0))
    params, trained = jax.jit(over_spaces)(keys, starts, x, y)
    smooth = jax.tree.map(lambda leaf: leaf[:, :, 0], params)
    places = list(np.ndindex(2, len(keys)))
    # Threads of linear algebra inside these threads would wait for each other most of the time.
    with threadpool_limits(1):
        in_parallel = Parallel(n_jobs=-1, prefer="threads")
        random = in_parallel(delayed(by_least_squares)(starts, *place, slice(None)) for place in places)
        again = in_parallel(delayed(by_least_squares)(smooth, *place, slice(1)) for place in places)
    curves, beside_jump = predict_on_grid(params)
    shape = (2, len(keys), -1, len(WIDTHS))
    return Errors(np.array(trained), np.reshape(random, shape), np.reshape(again, shape), beside_jump, curves)


GRID = np.linspace(-HALF_WIDTH, HALF_WIDTH, 20_001, dtype=np.float32)


def predict_on_grid(params) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the first seed's networks of 16 and 1,024 units along the line, and all seeds' largest errors at jumps."""
    x = jnp.pad(jnp.asarray(GRID)[:, None], ((0, 0), (0, DIMENSIONS - 1)))
    on_line = jax.tree.map(lambda leaf: leaf[0, :, 2], params)
    predicted = jax.jit(partial(jax.lax.map, lambda params: fnn.predict(MODEL, params, ((),) * 3, x)))(on_line)
    heights = np.abs(np.asarray(predicted) - square_wave(GRID, 3)[:, None]).max(axis=1) / 2
    curves = {f"{width:,} units": np.asarray(predicted[0, :, WIDTHS.index(width)]) for width in (16, 1024)}
    return curves, heights


# The parts ------------------------------------------------------------------------------------------------------------


def log_log_slopes(errors: np.ndarray) -> np.ndarray:
    """Return the slopes of log error over log width, by least squares, for errors ``(seeds, widths)``."""
    return np.polyfit(np.log(WIDTHS), np.log(errors).T, 1)[0]


def mean_log_ratios(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Return the mean log10 ratio of the errors from 16 units on; below, neither has learned much."""
    return np.log10(over / under)[..., 2:].mean(axis=-1)


def quartile_curve(x, values: np.ndarray) -> Curve:
    """Return the median of the seeds with the quartiles as a band."""
    return Curve(x, *(np.quantile(values, share, axis=0) for share in (0.5, 0.25, 0.75)))


@experiment_part("Width", LINE, SPACE, JUMP, BARRON_LINE, BARRON_SPACE, RANDOM_SPACE, RANDOM_LINE)
def width(settings: Settings) -> Outcome:
    grad = checked_mlp_value_and_grad(settings, (3, 5, 2))
    errors = measure_widths(settings, grad)
    line, space = errors.trained
    widest = np.median(errors.trained[..., -1], axis=1)
    left = np.vectorize(partial(format_number, digits=2))(widest)
    refitted = format_number(np.median(errors.refitted[0, :, 0, -1]), 2)
    beaten = [
        mean_log_ratios(random, trained)[:, 0] for random, trained in zip(errors.random, errors.trained, strict=True)
    ]
    smooth = {
        space: {"trained": errors.trained[i, :, 0], "random, output fitted": errors.random[i, :, 0],
                "trained, output fitted again": errors.refitted[i, :, 0]}
        for i, space in enumerate(("on a line", "in eight dimensions"))
    }  # fmt: skip
    results = (
        judge(LINE, line[:, :2, -1].max(axis=1)),
        judge(SPACE, space[:, :2, -1].max(axis=1)),
        judge(JUMP, errors.beside_jump[:, -1]),
        judge(BARRON_LINE, log_log_slopes(line[:, 0])),
        judge(BARRON_SPACE, log_log_slopes(space[:, 0]),
              "The theorem is about the best network of each width; this is the one that Adam found. With the output "
              f"layer fitted again: {log_log_slopes(errors.refitted[1, :, 0]).mean():.2f}."),
        judge(RANDOM_SPACE, beaten[1]),
        judge(RANDOM_LINE, beaten[0]),
    )  # fmt: skip
    best = [WIDTHS[np.median(some, axis=0).argmin()] for some in errors.trained[1, :, :2].swapaxes(0, 1)]
    random_slopes = [log_log_slopes(random[:, 0]).mean() for random in errors.random]
    jump = np.median(errors.beside_jump, axis=0)
    wider = (
        f" There the smooth wave is fitted best with {best[0]:,} units, the kinked one with {best[1]:,}. A likely "
        "reason: "
        "with the usual initial weights, the more units a network has, the less training turns each."
    )
    return Outcome(
        results=results,
        figures=(
            Figure(
                title="Error by width, smooth, kinked and jumping targets",
                alternative="Squared error against units, both logarithmic, for three targets on a line and in eight "
                f"dimensions. At 1,024 units the medians are {left[0, 0]}, {left[0, 1]} and "
                f"{left[0, 2]} on the line (smooth, kinked, jumps), {left[1, 0]}, {left[1, 1]} and "
                f"{left[1, 2]} in eight dimensions. A line of slope −1 is drawn beside them.",
                panels=tuple(
                    errors_panel(errors_by_target(trained), title)
                    for trained, title in zip(errors.trained, smooth, strict=True)
                ),
                caption=f"All weights trained by Adam, 32 new points a step. Vertical: {UNEXPLAINED}. Medians of the "
                        "seeds; "
                "bands hold the middle half of them. Barron's 1/n is a slope here, without his constant.",
            ),
            Figure(
                title="Error by width, trained and random hidden units",
                alternative="Squared error of the smooth wave against units for trained networks, random hidden units "
                "with a fitted output layer, and trained ones whose output layer is fitted again. The random ones' "
                f"slope is {random_slopes[0]:.2f} on the line and {random_slopes[1]:.2f} in eight dimensions; the "
                f"trained ones' {log_log_slopes(line[:, 0]).mean():.2f} and {log_log_slopes(space[:, 0]).mean():.2f}.",
                panels=tuple(errors_panel(curves, title) for title, curves in smooth.items()),
                caption="Random: directions and offsets of the hidden units stay as drawn, the output layer is fitted "
                "by least squares to 4,096 points (quick: 2,048). Fitted again: the same with the hidden units that "
                "Adam left.",
            ),
            Figure(
                title="Networks beside a square wave, and their largest error by width",
                alternative="Left: a square wave and networks of 16 and 1,024 units along the line; the wide one "
                "follows it but for short slopes at the jumps. Right: the largest error in heights of the jump "
                f"against units: {jump[0]:.2f} at 1 unit, {jump[-1]:.2f} at 1,024, while the squared error falls to "
                f"{widest[0, 2]:.3f} of the variance.",
                panels=(
                    lines({"target": Curve(GRID, square_wave(GRID, 3.0))}
                          | {name: Curve(GRID, curve) for name, curve in errors.drawn_curves.items()},
                          x="x", y="output", subtitle="one seed"),
                    lines({"largest error, in jumps": quartile_curve(WIDTHS, errors.beside_jump),
                           "squared error, share of variance": quartile_curve(WIDTHS, line[:, 2])},
                          x="hidden units", y="error", log="xy", points=True, thresholds={"half the jump": 0.5}),
                ),
                caption="A network of ReLUs is continuous: between the two sides of a jump it takes every value, and "
                "somewhere there it is half the jump away. Squared error doesn't mind, for that place is narrow.",
            ),
        ),
        text=f"A thousand units do what the theorem promises: on a line {left[0, 0]} of a smooth wave's variance "
        f"is left, of a kinked one's {left[0, 1]}. In eight dimensions it is {left[1, 0]} and "
        f"{left[1, 1]}.{wider if min(best) < WIDTHS[-1] else ''} The theorem is about continuous functions, "
        "and rightly: at a jump the largest error is "
        f"{jump[-1]:.2f} jumps with 1,024 units. It also states that a good network exists, not that it is found: "
        "fitting the output layer again, with the hidden units as training left them, "
        f"lowers the error on the line from {left[0, 0]} to {refitted}.\n\n"
        "On a line the hidden layer needs no training: random units with a fitted output layer are "
        f"better than trained ones, by a factor of {10 ** -beaten[0].mean():.1f} from 16 units on. In eight dimensions "
        f"trained ones are better by a factor of {10 ** beaten[1].mean():.1f}: they turn to the three directions that "
        "matter, and random ones would have to fill the space. That is what Barron proved of fixed bases.",
    )  # fmt: skip


def errors_by_target(errors: np.ndarray) -> dict[str, np.ndarray]:
    return {name: errors[:, i] for i, name in enumerate(TARGETS)}


def errors_panel(errors: dict[str, np.ndarray], title: str) -> Panel:
    curves = {name: quartile_curve(WIDTHS, values) for name, values in errors.items()}
    return lines(curves | {"1/n": Curve(WIDTHS, 1 / np.array(WIDTHS))}, x="hidden units", y="squared error", log="xy",
                 points=True, subtitle=title)  # fmt: skip


EXPERIMENT = Experiment(
    name="approximation",
    order=10.1,
    title="Approximation by one hidden layer",
    introduction="A network with one hidden layer can approximate any continuous function, by the theorem, "
    "given enough units. We measure how many are enough for which functions, whether training finds the good "
    "network, and whether the hidden units need training.\n\nKnown functions are fitted without noise: a smooth wave, "
    "one with kinks, one with jumps, on a line and in eight dimensions, where they vary along three directions that "
    "the network has to find.",
    parts=(width,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
