"""One hidden layer against several with as many parameters, on a smooth wave and on a saw.

``python -m experiments.depth`` fits both functions of a line without noise, beside ``experiments.approximation``.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, judge
from experiments.harness.experiment import Experiment, ExperimentResult, Outcome, Settings, Table, experiment_part
from experiments.harness.figures import Curve, Figure, Panel, lines
from experiments.harness.runner import run_command_line
from experiments.shared.function_fitting import (
    HALF_WIDTH,
    UNEXPLAINED,
    adam_cosine_decay,
    checked_mlp_value_and_grad,
    sine_wave,
    triangle_wave,
    unexplained_share,
)
from experiments.shared.initialization import he_mlp_params

TELGARSKY = "Telgarsky, Benefits of depth in neural networks, 2016"

DEPTH_TEETH = Claim(
    name="depth_on_a_sawtooth",
    sentence="Three hidden layers fit a saw of 16 teeth better than one with as many parameters.",
    section=Section.MLP,
    source=TELGARSKY,
    quantity="factor between the squared errors, one layer to three, log10",
    at_least=0,
    seeds=50,
    quick_seeds=8,
)
DEPTH_WAVE = Claim(
    name="depth_on_a_wave",
    sentence="Three hidden layers fit a smooth wave better than one with as many parameters.",
    section=Section.MLP,
    quantity="factor between the squared errors, one layer to three, log10",
    at_least=0,
    seeds=50,
    quick_seeds=8,
)
ANY_PATTERN = Claim(
    name="one_layer_learns_any_pattern",
    sentence="One hidden layer of 333 units learns a saw of 16 teeth, which 17 of its units could draw.",
    section=Section.WHY_APPROXIMATION,
    quantity=UNEXPLAINED,
    at_most=0.01,
    seeds=50,
    quick_seeds=8,
)

TEETH = 16
SAW = partial(triangle_wave, frequency=TEETH * np.pi / (2 * HALF_WIDTH))
DEPTHS = {"one hidden layer of 333": (1, 333, 1), "three hidden layers of 21": (1, 21, 21, 21, 1)}
RATES = (0.01, 0.03)
SHAPES = {"smooth wave": partial(sine_wave, frequency=3.0), "saw of 16 teeth": SAW}


@experiment_part("Depth at equal parameters", DEPTH_TEETH, DEPTH_WAVE, ANY_PATTERN)
def depth(settings: Settings) -> Outcome:
    keys, epochs = settings.keys_of(DEPTH_TEETH), settings.steps(quick=8, full=16)
    x = jnp.linspace(-HALF_WIDTH, HALF_WIDTH, 4096)[:, None]
    y = jnp.stack([jnp.asarray(shape(np.asarray(x[:, 0]))) for shape in SHAPES.values()])
    grad = checked_mlp_value_and_grad(settings, (2, 5, 4, 3, 2))
    errors, fits, chosen = {}, {}, {}
    for name, sizes in DEPTHS.items():
        model, state = fnn.mlp(sizes), ((),) * (2 * len(sizes) - 3)
        start = he_mlp_params(np.random.default_rng(settings.seed), sizes, len(keys), bias=1.0)

        def outputs(key, start, rate, y, model=model, state=state):
            params = fnn.train(model, fnn.mean_squared_error, adam_cosine_decay(rate, epochs * (len(x) // 32)),
                               (x, y[:, None]), epochs=epochs, batch_size=32, key=key, grad=grad, params=start,
                               state=state).params  # fmt: skip
            return fnn.predict(model, params, state, x)[:, 0]

        over_seeds_and_rates = jax.vmap(jax.vmap(outputs, (0, 0, None, None)), (None, None, 0, None))
        every = jax.vmap(over_seeds_and_rates, (None, None, None, 0))
        predicted = jax.jit(every)(keys, start, jnp.array(RATES), y)  # (shapes, rates, seeds, points)
        shares = np.asarray(unexplained_share(predicted, y[:, None, None]))
        best = np.median(shares, axis=2).argmin(axis=1)
        chosen[name] = [RATES[rate] for rate in best]
        errors[name] = np.stack([shares[shape, rate] for shape, rate in enumerate(best)])
        middle = np.argsort(errors[name][1])[len(keys) // 2]
        fits[name] = np.asarray(predicted[1, best[1], middle])
    flat, deep = errors.values()
    gains = np.log10(flat / deep)
    medians = np.median([flat, deep], axis=2)
    rows = tuple(
        (name, *(f"{share:.2g}" for share in np.median(errors[name], axis=1)), *chosen[name]) for name in DEPTHS
    )
    return Outcome(
        results=(judge(DEPTH_TEETH, gains[1]), judge(DEPTH_WAVE, gains[0]), judge(ANY_PATTERN, flat[1])),
        figures=(
            Figure(
                title="The saw's variance left by one hidden layer and by three",
                alternative="Left: the saw of 16 teeth and the two networks of the middle seed. The network with one "
                f"hidden layer leaves {medians[0, 1]:.2g} of the variance, the one with three {medians[1, 1]:.2g}. "
                "Right: the distribution of the seeds' errors for both.",
                panels=(
                    lines({"target": Curve(x, y[1])} | {name: Curve(x, fit) for name, fit in fits.items()},
                          x="x", y="output", subtitle="the middle seed"),
                    spread_panel(errors),
                ),
                caption="Both networks have about 1,000 parameters (1,000 and 988) and the better of the learning "
                        "rates "
                f"{', '.join(map(str, RATES))} for each target; Adam, {epochs * 128:,} steps of 32 samples.",
            ),
        ),
        tables=(
            Table("Median share of the variance left, and its learning rate",
                  ("network", *SHAPES, *(f"rate for the {shape}" for shape in SHAPES)), rows),
        ),
        text=f"On the saw one hidden layer leaves {medians[0, 1]:.2g} of the variance and three leave "
        f"{medians[1, 1]:.2g}, with as many parameters; on the smooth wave it is {format_number(medians[0, 0], 2)} and "
        f"{format_number(medians[1, 0], 2)}. A saw folds the line upon itself: several layers can do so in turn, one "
        "layer needs a unit for every tooth. Seventeen units in one layer could draw all the teeth exactly; that 333 "
        f"trained ones leave {medians[0, 1]:.2g} is the difference between what a network can represent and "
        "what it learns.",
    )  # fmt: skip


def spread_panel(errors: dict[str, np.ndarray]) -> Panel:
    curves = {
        f"{shape}, {name.split(' hidden')[0]}": Curve(
            np.sort(values[i]), (np.arange(values[i].size) + 1) / values[i].size
        )
        for i, shape in enumerate(SHAPES)
        for name, values in errors.items()
    }
    return lines(curves, x="squared error, share of the variance", y="share of seeds below", log="x",
                 subtitle="all seeds")  # fmt: skip


EXPERIMENT = Experiment(
    name="depth",
    order=10.2,
    title="One and three hidden layers with as many parameters",
    introduction="More hidden layers learn more complex patterns, it is said. A thousand parameters are put into one "
    "hidden layer and into three, to fit a smooth wave and a saw, of which it is proved that depth saves units.",
    parts=(depth,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
