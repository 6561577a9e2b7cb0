"""Recurrent networks: the gradient through time, and the adding and copying problems over short and long lags.

``python -m experiments.recurrent`` compares a plain recurrent network with LSTM and GRU, and descent with clipping.
"""

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnn as fnn
from experiments.harness.claims import Claim, Section, interval, judge
from experiments.harness.experiment import (
    Experiment,
    ExperimentResult,
    Outcome,
    Settings,
    checked_value_and_grad,
    experiment_part,
    jax_option,
)
from experiments.harness.figures import Curve, Figure, bars, lines
from experiments.harness.runner import run_command_line
from experiments.shared.fresh_batches import train_on_draws

BENGIO = "Bengio, Simard and Frasconi, Learning long-term dependencies with gradient descent is difficult, 1994"
LSTM_PAPER = "Hochreiter and Schmidhuber, Long short-term memory, 1997"
SAXE = "Saxe, McClelland and Ganguli, Exact solutions to the nonlinear dynamics of learning, 2014"
PASCANU = "Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, 2013"
STEPS = 100
THROUGH = {
    "section": Section.VANISHING, "seeds": 100, "quick_seeds": 20,
    "quantity": f"log₁₀ of |∂L/∂x| {STEPS} steps before the loss over that at its own step",
}  # fmt: skip
TRAINED = {"section": Section.WHY_FOUNDATION, "seeds": 20, "quick_seeds": 3}

CONTRACTING = Claim(
    **THROUGH, name="recurrent-contracting", source=PASCANU, at_most=STEPS * math.log10(0.9),
    sentence="With a recurrent kernel of norm 0.9 at most 0.9¹⁰⁰ of the gradient is left after 100 steps.",
)  # fmt: skip
ORTHOGONAL = Claim(
    **THROUGH, name="recurrent-orthogonal", source=f"{SAXE}, for linear networks", at_least=-1,
    sentence="With inputs of 0.01 an orthogonal recurrent kernel keeps a tenth of it in a tanh network.",
)  # fmt: skip
SATURATED = Claim(
    **THROUGH, name="recurrent-saturated", source=f"{SAXE}, who show the opposite for linear networks", at_most=-10,
    sentence="With inputs of size 1, which reach where tanh is flat, an orthogonal kernel keeps at most 10⁻¹⁰ of it.",
)  # fmt: skip
EXPLODING = Claim(
    **THROUGH, name="recurrent-exploding", source=PASCANU, at_least=1,
    sentence="With a recurrent kernel of four times an orthogonal one the gradient grows tenfold or more.",
)  # fmt: skip
LSTM_DEFAULT = Claim(
    **THROUGH, name="recurrent-lstm", source="Tallec and Ollivier, Can recurrent neural networks warp time, 2018",
    at_most=-6, sentence="An LSTM with the usual forget bias of 1 keeps at most a millionth of it.",
)  # fmt: skip
LSTM_OPEN = Claim(
    **THROUGH, name="recurrent-lstm-open", source=LSTM_PAPER, at_least=-1,
    sentence="With its forget gates open, by a bias of 5, it keeps a tenth.",
)  # fmt: skip
LAGS, ADD_STEPS = (10, 40), 1500
ADD = TRAINED | {"quantity": "mean squared error of the last 50 steps; 0.167 for the constant 1"}
ADD_NEAR = Claim(
    **ADD, name="recurrent-adding-near", source=LSTM_PAPER, at_most=1 / 60,
    sentence=f"A plain recurrent network learns to add two numbers among the last {LAGS[0]} steps.",
)  # fmt: skip
ADD_FAR = Claim(
    **ADD, name="recurrent-adding-far", source=BENGIO, at_least=1 / 12,
    sentence=f"Among {LAGS[1]} it doesn't learn it in {ADD_STEPS:,} steps: at least half of the variance is left.",
)  # fmt: skip
ADD_LSTM = Claim(
    **ADD, name="recurrent-adding-lstm", source=LSTM_PAPER, at_most=1 / 60,
    sentence=f"An LSTM learns it among {LAGS[1]} in as many steps: at most a tenth of the variance is left.",
)  # fmt: skip
ADD_GRU = Claim(
    **ADD, name="recurrent-adding-gru", at_most=1 / 60,
    source="Chung, Gulcehre, Cho and Bengio, Empirical evaluation of gated recurrent neural networks, 2014",
    sentence="A GRU learns it as well.",
)  # fmt: skip
BLANKS, COPY_STEPS = (2, 20), 500
COPY = TRAINED | {"source": "Henaff, Szlam and LeCun, Recurrent orthogonal networks and long-memory tasks, 2016"}
COPY_PLAIN = Claim(
    **COPY, name="recurrent-copying-plain", at_most=math.log(8) / 2,
    sentence=f"An orthogonal plain network learns to repeat five symbols after {BLANKS[1]} blanks, to half of ln 8.",
    quantity="cross-entropy of a symbol in nats, mean of the last 50 steps; ln 8 = 2.08 by chance",
)  # fmt: skip
COPY_LSTM = Claim(
    **COPY, name="recurrent-copying-lstm", at_least=0.3,
    sentence=f"It learns that faster than an LSTM: after {COPY_STEPS} steps it is 0.3 nats ahead.",
    quantity="cross-entropy of the LSTM minus the plain network's, nats, seed by seed",
)  # fmt: skip
CLIP_STEPS = 1000
CLIP = {
    "section": Section.VANISHING, "source": PASCANU, "statistic": "share", "seeds": 100, "quick_seeds": 20,
    "quantity": "whether the last 50 steps' error isn't finite or is above the constant's, 0.167, by half",
}  # fmt: skip
UNCLIPPED = Claim(
    **CLIP, name="recurrent-unclipped", at_least=0.5,
    sentence="From twice an orthogonal kernel, descent diverges or ends worse than a constant in half of the runs.",
)  # fmt: skip
CLIPPED = Claim(
    **CLIP, name="recurrent-clipped", at_most=1 / 3,
    sentence="Clipped to a norm of 1, it does so in a third of the runs at most.",
)  # fmt: skip

UNITS, BATCH = 16, 20
SYMBOLS, COPIED, IGNORED = 8, 5, -1
LAST = 50
VARIANCE = 1 / 6
CELLS: dict[str, Callable[[int, int], fnn.Layer]] = {"plain": fnn.rnn, "LSTM": fnn.lstm, "GRU": fnn.gru}
COPY_LOSS = fnn.softmax_cross_entropy_with(ignore_label=IGNORED)
ADAM, DESCENT = fnn.adam(1e-2), fnn.sgd(0.1)
CLIPPED_DESCENT = optax.chain(fnn.clip_by_global_norm(1.0), DESCENT)


@cache
def with_scaled_recurrence(layer: fnn.Layer, scale: float) -> fnn.Layer:
    """Return a recurrent layer whose hidden kernel starts ``scale`` times as large."""

    def init(key):
        params, state = layer.init(key)
        return params._replace(hidden_kernel=scale * params.hidden_kernel), state

    return layer._replace(init=init)


def checked_recurrent_value_and_grad(settings: Settings):
    """Return the settings' gradients after checking a small network with every cell on the last of three steps."""
    rng = np.random.default_rng(settings.seed)
    x, y = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 3, 2), (3, 1)))
    model = fnn.serial(fnn.rnn(2, 2), fnn.lstm(2, 2), fnn.gru(2, 2), fnn.last_step, fnn.linear(2, 1))
    return checked_value_and_grad(settings, model, fnn.mean_squared_error, (x, y))


def checked_copy_value_and_grad(settings: Settings):
    """Return the settings' gradients after checking a small network with the loss of the copying problem."""
    rng = np.random.default_rng(settings.seed)
    x, y = jnp.asarray(rng.normal(size=(2, 3, 2)), jnp.float32), jnp.array([[IGNORED, 0, 1], [IGNORED, 2, 0]])
    model = fnn.serial(fnn.rnn(2, 2), fnn.lstm(2, 2), fnn.linear(2, 3))
    return checked_value_and_grad(settings, model, COPY_LOSS, (x, y))


# Through time, before training ----------------------------------------------------------------------------------------


class Start(NamedTuple):
    """A network before training: its layer, the factor of its orthogonal recurrent kernel, and its inputs' size."""

    layer: fnn.Layer
    scale: float = 1.0
    size: float = 1.0


PLAIN = fnn.rnn(UNITS, UNITS)
STARTS = {
    CONTRACTING: ("plain, 0.9 · orthogonal", Start(PLAIN, 0.9)),
    ORTHOGONAL: ("plain, orthogonal, small inputs", Start(PLAIN, size=0.01)),
    SATURATED: ("plain, orthogonal", Start(PLAIN)),
    EXPLODING: ("plain, 4 · orthogonal", Start(PLAIN, 4.0)),
    LSTM_DEFAULT: ("LSTM, forget bias 1", Start(fnn.lstm(UNITS, UNITS))),
    LSTM_OPEN: ("LSTM, forget bias 5", Start(fnn.lstm(UNITS, UNITS, forget_bias=5.0))),
}


@partial(jax.jit, static_argnums=0)
def gradients_through_time(layer: fnn.Layer, keys: jax.Array, scale: float, size: float) -> jax.Array:
    """Return |∂L/∂x[t]| over that of the last step, for a loss of the last output: ``(seeds, STEPS + 1)``.

    The input is white noise of standard deviation ``size``. A plain network's recurrent kernel is multiplied by
    ``scale``, and its input kernel is the identity, so that ∂L/∂x is the gradient at the pre-activation itself.
    """

    def one(key):
        init_key, x_key, dy_key = jax.random.split(key, 3)
        params, state = layer.init(init_key)
        if params.input_kernel.shape == (UNITS, UNITS):
            params = params._replace(input_kernel=jnp.eye(UNITS), hidden_kernel=scale * params.hidden_kernel)
        x = size * jax.random.normal(x_key, (1, STEPS + 1, UNITS))
        y, _, residuals = layer.forward(params, state, x, train=True)
        dy = jnp.zeros_like(y).at[:, -1].set(jax.random.normal(dy_key, (UNITS,)))
        sizes = jnp.linalg.norm(layer.backward(residuals, dy)[1][0], axis=-1)
        return sizes / sizes[-1]

    return jax.vmap(one)(keys)


@experiment_part("Through a hundred steps", *STARTS)
def through_time(settings: Settings) -> Outcome:
    keys = settings.keys_of(CONTRACTING)
    with jax_option("jax_enable_x64", True):  # float32 has no numbers below 10^-45
        logs = {
            name: np.log10(np.asarray(gradients_through_time(start.layer, keys, start.scale, start.size)))
            for name, start in STARTS.values()
        }
    results = tuple(judge(claim, logs[name][:, 0]) for claim, (name, _) in STARTS.items())
    left = {name: values[:, 0].mean() for name, values in logs.items()}
    summary = ", ".join(f"{name} 10^{value:.1f}" for name, value in left.items())
    figure = Figure(
        "Size of the gradient by the steps before the loss",
        f"Size of the gradient by the input against the steps between it and the loss. After {STEPS}: {summary}.",
        (lines(
            {name: Curve(np.arange(STEPS + 1), 10.0 ** values.mean(0)[::-1]) for name, values in logs.items()},
            x="steps before the loss", y="|∂L/∂x| there / at the loss", log="y", range_y=(1e-20, 1e12)),),
        f"{UNITS} units, white noise as the input, before training. Geometric means over {len(keys)} seeds.",
    )  # fmt: skip
    text = (
        f"After {STEPS} steps there is left: {summary}.\n\nA step of the plain network multiplies the gradient by the "
        "recurrent kernel and by the slopes of tanh. An orthogonal kernel keeps its size, and so do the slopes while "
        "the inputs are small. With inputs of size 1 the slopes are below 1 at every step, and their product vanishes. "
        "An LSTM's cell is multiplied by the forget gate: σ(1) = 0.73 with the usual bias, and 0.73¹⁰⁰ is 10^-13.6. "
        "With a bias of 5 it is 0.993, and 0.993¹⁰⁰ is a half. The long memory of an LSTM needs gates that are open at "
        "the start or that training opens."
    )
    return Outcome(results, (figure,), text=text)


# The adding problem ---------------------------------------------------------------------------------------------------


def draw_addends(key: jax.Array, lag: jax.Array) -> fnn.Batch:
    """Return sequences of LAGS[-1] steps with a number of [0, 1] and a mark each, and the sum of the marked numbers.

    One mark is in the first half of the last ``lag`` steps and one in the second half.
    """
    value_key, *mark_keys = jax.random.split(key, 3)
    length = LAGS[-1]
    values = jax.random.uniform(value_key, (BATCH, length))
    half = lag // 2
    starts = (length - lag, length - half)
    marks = sum(
        jax.nn.one_hot(start + jax.random.randint(mark_key, (BATCH,), 0, half), length)
        for start, mark_key in zip(starts, mark_keys, strict=True)
    )
    return fnn.Batch(jnp.stack([values, marks], axis=-1), (values * marks).sum(-1, keepdims=True))


@cache
def adder(cell: str, scale: float = 1.0) -> fnn.Layer:
    layer = CELLS[cell](2, UNITS)
    return fnn.serial(
        layer if scale == 1 else with_scaled_recurrence(layer, scale), fnn.last_step, fnn.linear(UNITS, 1)
    )


def train_over_lags(keys, lags, **given) -> np.ndarray:
    """Return the losses of a network for every lag and key, ``(lags, seeds, steps)``."""
    each_key, each_lag = jnp.concatenate([keys] * len(lags)), jnp.repeat(jnp.array(lags), len(keys))
    trained = train_on_draws(each_key, each_lag, source_axis=0, **given)
    return np.asarray(trained.losses, float).reshape(len(lags), len(keys), -1)


def smooth(losses: np.ndarray, width: int = LAST) -> np.ndarray:
    """Return the means of consecutive runs of ``width`` steps."""
    return losses[..., : losses.shape[-1] // width * width].reshape(*losses.shape[:-1], -1, width).mean(-1)


def lag_figure(title: str, losses: dict[str, np.ndarray], lags, of: str, y: str, chance: float) -> Figure:
    runs = {f"{name}, {of} {lag}": smooth(values[i]) for name, values in losses.items() for i, lag in enumerate(lags)}
    summary = ", ".join(f"{name} {values[:, -1].mean():.3f}" for name, values in runs.items())
    return Figure(
        title, f"Loss by step. At the end: {summary}; by chance {chance:.3f}.",
        (lines({name: Curve(LAST * (1 + np.arange(values.shape[1])), values.mean(0)) for name, values in runs.items()},
               x="step", y=y, log="y", thresholds={"by chance": chance}),
         bars({name: (values[:, -1].mean(), *interval(values[:, -1])) for name, values in runs.items()}, x=y)),
        f"Means over seeds and over {LAST} steps. Every step has a new batch.",
    )  # fmt: skip


@experiment_part("The adding problem", ADD_NEAR, ADD_FAR, ADD_LSTM, ADD_GRU)
def adding(settings: Settings) -> Outcome:
    grad = checked_recurrent_value_and_grad(settings)
    keys = settings.keys_of(ADD_NEAR)
    given = {"loss": fnn.mean_squared_error, "optimizer": ADAM, "draw": draw_addends, "grad": grad,
             "steps": ADD_STEPS}  # fmt: skip
    losses = {cell: train_over_lags(keys, LAGS, model=adder(cell), **given) for cell in CELLS}
    last = {cell: smooth(values)[..., -1] for cell, values in losses.items()}
    results = (
        judge(ADD_NEAR, last["plain"][0]), judge(ADD_FAR, last["plain"][1]),
        judge(ADD_LSTM, last["LSTM"][1], f"Over {LAGS[0]} steps it has {last['LSTM'][0].mean():.4f}."),
        judge(ADD_GRU, last["GRU"][1], f"Over {LAGS[0]} steps it has {last['GRU'][0].mean():.4f}."),
    )  # fmt: skip
    figure = lag_figure(
        "Adding: loss by step", losses, LAGS, "marks within", "mean squared error", VARIANCE
    )  # fmt: skip
    summary = "; ".join(
        f"{cell}: {near.mean():.4f} over {LAGS[0]} steps, {far.mean():.4f} over {LAGS[1]}"
        for cell, (near, far) in last.items()
    )
    text = (
        f"Mean squared errors after {given['steps']:,} steps of Adam on batches of {BATCH}: {summary}. The constant 1 "
        f"has {VARIANCE:.3f}. The target depends on one number of the first half and one of the second; all other "
        "numbers are noise."
    )
    return Outcome(results, (figure,), text=text)


# The copying problem --------------------------------------------------------------------------------------------------


def draw_copies(key: jax.Array, blanks: jax.Array) -> fnn.Batch:
    """Return one-hot sequences and labels: five symbols, ``blanks`` blanks, then a mark, and the symbols as answers.

    Sequences begin with blanks, so that all have one length. Labels before the answers are ignored.
    """
    length, blank, mark = 2 * COPIED + max(BLANKS), SYMBOLS, SYMBOLS + 1
    symbols = jax.random.randint(key, (BATCH, COPIED), 0, SYMBOLS)
    tokens = jnp.full((BATCH, length), blank).at[:, length - COPIED].set(mark)
    tokens = jax.lax.dynamic_update_slice(tokens, symbols, (0, length - 2 * COPIED - blanks))
    labels = jnp.full((BATCH, length), IGNORED).at[:, -COPIED:].set(symbols)
    return fnn.Batch(jax.nn.one_hot(tokens, SYMBOLS + 2), labels)


@cache
def copier(cell: str) -> fnn.Layer:
    return fnn.serial(CELLS[cell](SYMBOLS + 2, 2 * UNITS), fnn.linear(2 * UNITS, SYMBOLS))


@experiment_part("The copying problem", COPY_PLAIN, COPY_LSTM)
def copying(settings: Settings) -> Outcome:
    grad = checked_copy_value_and_grad(settings)
    keys = settings.keys_of(COPY_PLAIN)
    given = {"loss": COPY_LOSS, "optimizer": ADAM, "draw": draw_copies, "grad": grad,
             "steps": COPY_STEPS}  # fmt: skip
    losses = {cell: train_over_lags(keys, BLANKS, model=copier(cell), **given) for cell in ("plain", "LSTM")}
    last = {cell: smooth(values)[..., -1] for cell, values in losses.items()}
    results = (
        judge(COPY_PLAIN, last["plain"][1], f"After {BLANKS[0]} blanks it has {last['plain'][0].mean():.2f}."),
        judge(COPY_LSTM, last["LSTM"][1] - last["plain"][1]),
    )
    figure = lag_figure("Copying: loss by step", losses, BLANKS, "blanks", "cross-entropy (nats)", math.log(SYMBOLS))
    summary = "; ".join(
        f"{cell}: {near.mean():.2f} nats after {BLANKS[0]} blanks, {far.mean():.2f} after {BLANKS[1]}"
        for cell, (near, far) in last.items()
    )
    text = (
        f"After {given['steps']:,} steps: {summary}. By chance it is ln 8 = 2.08. All five symbols have to be kept "
        "through the blanks, where nothing but blanks comes in. The orthogonal kernel of the plain network keeps them "
        "as they are; an LSTM has to learn to open its gates. The adding problem has noise to be ignored, which gates "
        "do from few steps of training."
    )
    return Outcome(results, (figure,), text=text)


# Clipping -------------------------------------------------------------------------------------------------------------


@experiment_part("Clipping", UNCLIPPED, CLIPPED)
def clipping(settings: Settings) -> Outcome:
    grad = checked_recurrent_value_and_grad(settings)
    keys = settings.keys_of(CLIPPED)
    given = {"loss": fnn.mean_squared_error, "draw": draw_addends, "grad": grad, "model": adder("plain", 2.0),
             "steps": CLIP_STEPS}  # fmt: skip
    losses = {
        name: train_over_lags(keys, LAGS[:1], optimizer=optimizer, **given)[0]
        for name, optimizer in (("not clipped", DESCENT), ("clipped to a norm of 1", CLIPPED_DESCENT))
    }
    losses = {name: np.nan_to_num(values, nan=np.inf, posinf=np.inf) for name, values in losses.items()}
    last = {name: values[:, -LAST:].mean(1) for name, values in losses.items()}
    has_failed = {name: values > 1.5 * VARIANCE for name, values in last.items()}
    results = tuple(
        judge(claim, failed, f"The median error is {np.median(last[name]):.3g}.")
        for claim, (name, failed) in zip((UNCLIPPED, CLIPPED), has_failed.items(), strict=True)
    )
    summary = ", ".join(f"{name} {failed.mean():.0%}" for name, failed in has_failed.items())
    figure = Figure(
        "Error by step, with and without clipping",
        f"Median error by step. Shares of runs that end above 1.5 times the error of a constant: {summary}.",
        (lines({name: Curve(1 + np.arange(values.shape[1]), np.median(values, 0)) for name, values in losses.items()},
               x="step", y="mean squared error (median)", log="y", thresholds={"a constant": VARIANCE}),),
        "Plain recurrent networks that start with twice an orthogonal kernel, marks within ten steps, rate 0.1.",
    )  # fmt: skip
    text = (
        f"Runs that end worse than 1.5 times the error of a constant: {summary}. With such kernels "
        "gradients grow through time. Clipping bounds the length of a step and keeps its direction. It prevents "
        "divergence; it doesn't make the network learn the sum, as the median error shows."
    )
    return Outcome(results, (figure,), text=text)


EXPERIMENT = Experiment(
    name="recurrent",
    order=10.7,
    title="Recurrent networks: the gradient through time",
    introduction="A recurrent network multiplies the gradient at every step in time, a deep one at every layer. "
    "We measure what is left after a hundred steps, before training. Then plain networks, LSTM and GRU are trained on "
    "two problems that need memory: to add two marked numbers, and to repeat five symbols. Descent with exploding "
    "gradients is run with and without clipping.",
    parts=(through_time, adding, copying, clipping),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
