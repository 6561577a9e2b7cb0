"""Batch sizes: the noise of a batch's gradient, and the loss by step, epoch and second for six sizes."""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

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

NOISE_SLOPE = Claim(
    name="descent-noise-slope",
    sentence="The variance of a batch's gradient falls as one over the number of its samples.",
    section=Section.DESCENT, at_least=-1.05, at_most=-0.95,
    quantity="slope of log variance against log batch size, 1 to 256 samples drawn with replacement",
)  # fmt: skip
NOISE_WITHOUT = Claim(
    name="descent-noise-without-replacement",
    sentence="Drawn without replacement, a batch of half the samples has half that variance.",
    section=Section.DESCENT, at_least=0.45, at_most=0.55,
    quantity="variance of a batch of 256 of 512 samples drawn without replacement over that with replacement",
)  # fmt: skip
SINGLE_NOISY = Claim(
    name="descent-single-noisy",
    sentence="A single sample's gradient is more noise than signal.",
    section=Section.DESCENT, at_least=1,
    quantity="standard deviation of a single sample's gradient over the length of the whole gradient, half trained",
)  # fmt: skip
SINGLE_FAST = Claim(
    name="descent-single-fast",
    sentence="With single samples training is fast: a pass over the data takes no longer than in batches of 32.",
    section=Section.DESCENT, at_most=1, seeds=20, quick_seeds=8,
    quantity="seconds an epoch, single samples over batches of 32, timed in turns on this machine",
)  # fmt: skip
SINGLE_SECONDS = Claim(
    name="descent-single-seconds",
    sentence="Single samples bring the loss down in no more seconds than batches of 32 do.",
    section=Section.DESCENT, at_most=1, seeds=20, quick_seeds=5,
    quantity="seconds to a training loss of 0.2, single samples over batches of 32, each at its best rate",
)  # fmt: skip
WHOLE_STABLE = Claim(
    name="descent-whole-stable",
    sentence="With the whole batch descent is stable: hardly an epoch ends with a higher loss.",
    section=Section.DESCENT, at_most=0.05, seeds=20, quick_seeds=5,
    quantity="share of the epochs that end with a higher training loss, at rate 0.1",
)  # fmt: skip
WHOLE_SLOW = Claim(
    name="descent-whole-slow",
    sentence="With the whole batch descent is slow: twice the epochs of batches of 32 and more.",
    section=Section.DESCENT, at_least=2, seeds=20, quick_seeds=5,
    quantity="epochs to a training loss of 0.2, whole batch over batches of 32, each at its best rate",
)  # fmt: skip
MINI_FASTEST = Claim(
    name="descent-mini-fastest",
    sentence="A mini-batch of 32 to 256 takes fewer seconds than both single samples and the whole batch.",
    section=Section.DESCENT, at_most=1, seeds=20, quick_seeds=5,
    quantity="seconds to a training loss of 0.2, best size of 32, 128, 256 over the better of 1 and 512",
)  # fmt: skip
MINI_STABLE = Claim(
    name="descent-mini-stable",
    sentence="Mini-batches of 32 are reasonably stable: at most a tenth of the epochs end with a higher loss.",
    section=Section.DESCENT, at_most=0.1, seeds=20, quick_seeds=5,
    quantity="share of the epochs that end with a higher training loss, at rate 0.1",
)  # fmt: skip

WHOLE_STABLE_BEST = Claim(
    name="descent-whole-stable-best",
    sentence="The whole batch is as stable at the rate that brings the loss down soonest.",
    section=Section.DESCENT, at_most=0.05, seeds=20, quick_seeds=5,
    quantity="share of the epochs that end with a higher training loss, at the best rate",
)  # fmt: skip
MINI_STABLE_BEST = Claim(
    name="descent-mini-stable-best",
    sentence="Mini-batches of 32 are as stable at the rate that brings the loss down soonest.",
    section=Section.DESCENT, at_most=0.1, seeds=20, quick_seeds=5,
    quantity="share of the epochs that end with a higher training loss, at the best rate",
)  # fmt: skip

SAMPLES = 512
HIDDEN = 32
MODEL = fnn.mlp((64, HIDDEN, 10))
LOSS = fnn.softmax_cross_entropy
GOAL = 0.2
RATES = np.geomspace(0.01, 10**0.5, 6)
SAME_RATE = 2
EPOCHS = {1: 15, 8: 20, 32: 40, 128: 60, 256: 80, SAMPLES: 120}
"""Of the full run, by batch size: more than the loss needs to come down."""
REPEATS = 5
SIZES = tuple(EPOCHS)
NOISE_SIZES = 2 ** np.arange(9)
DRAWS = 100


def load_samples() -> fnn.Batch:
    training = digits().training
    return fnn.Batch(training.x[:SAMPLES], training.y[:SAMPLES])


def batch_size_label(size: int) -> str:
    return "all 512" if size == SAMPLES else f"{size}"


# The noise of a gradient ----------------------------------------------------------------------------------------------


def sample_gradients(gradient: fnn.GradFn, params, state, data: fnn.Batch) -> jax.Array:
    """Return the gradient of every sample, ``(samples, parameters)``; a batch's gradient is the mean of them."""

    def of_one(x, y):
        return ravel_pytree(gradient(params, state, fnn.Batch(x[None], y[None]))[1])[0]

    return jax.vmap(of_one)(data.x, data.y)


def batch_weights(order: jax.Array, size: jax.Array) -> jax.Array:
    """Return every sample's weight in the mean over the first ``size`` of an order, which may name a sample twice."""
    inside = (jnp.arange(order.size) < size).astype(jnp.result_type(float))
    return jnp.zeros_like(inside).at[order].add(inside / inside.sum())


def draw_orders(networks: int, seed: int) -> np.ndarray:
    """Draw orders of the samples with and without replacement, ``(networks, 2, draws, samples)``."""
    chance = np.random.default_rng(seed)
    again = chance.integers(SAMPLES, size=(networks, DRAWS, SAMPLES))
    once = chance.permuted(np.tile(np.arange(SAMPLES), (networks, DRAWS, 1)), axis=2)
    return np.stack([again, once], axis=1).astype(np.int32)


def gradient_variance(gradients: jax.Array, orders: jax.Array) -> jax.Array:
    """Return the variance of a batch's gradient over all parameters, with and without replacement, ``(2, sizes)``."""
    weights = jax.vmap(jax.vmap(jax.vmap(batch_weights, (None, 0)), (0, None)), (0, None))(
        orders, jnp.asarray(NOISE_SIZES)
    )
    errors = (weights - 1 / SAMPLES) @ gradients
    return (errors**2).sum(axis=-1).mean(axis=1)


def gradient_noise(settings: Settings, make: Callable, data: fnn.Batch) -> Outcome:

    @jax.jit
    @jax.vmap
    def measure_noise(key, orders):
        found = fnn.train(MODEL, LOSS, fnn.sgd(0.1), data, epochs=5, batch_size=32, key=key, grad=make)
        gradients = sample_gradients(make(MODEL, LOSS), found.params, found.state, data)
        return gradient_variance(gradients, orders), jnp.linalg.norm(gradients.mean(axis=0)), found.history.loss[-1]

    keys = settings.keys_of(NOISE_SLOPE)
    variances, signal, losses = map(np.asarray, measure_noise(keys, draw_orders(len(keys), settings.seed)))
    slopes = np.polyfit(np.log(NOISE_SIZES), np.log(variances[:, 0]).T, 1)[0]
    halves = variances[:, 1, -1] / variances[:, 0, -1]
    ratio = np.sqrt(variances[:, 0, 0]) / signal
    expected = variances[:, 0, 0].mean() / NOISE_SIZES
    curves = {
        name: Curve(NOISE_SIZES, found.mean(axis=0), *np.percentile(found, (5, 95), axis=0))
        for name, found in zip(("with replacement", "without"), variances.swapaxes(0, 1), strict=True)
    } | {"1/batch": Curve(NOISE_SIZES, expected)}
    equal = int(np.ceil(ratio.mean() ** 2))
    figure = Figure(
        title="Variance of the gradient by batch size",
        alternative=f"Variance of a batch's gradient against the batch size, both logarithmic. With replacement it is "
        f"a straight line of slope {slopes.mean():.3f}, which lies on 1/batch; without replacement it bends below, to "
        f"{halves.mean():.2f} of it at half of the samples.",
        panels=(lines(curves, x="samples in the batch", y="variance of the gradient", log="xy", points=True),),
        caption=f"Summed over the parameters of a network 64-{HIDDEN}-10 after five epochs on {SAMPLES} digits; "
        f"{DRAWS} batches of each size, means over {len(ratio)} networks, bands for nine in ten of them.",
    )  # fmt: skip
    text = f"""The variance falls with the batch to the power {slopes.mean():.3f}: four times the samples halve the
noise, and cost four times the arithmetic. Drawn without replacement, as an epoch does, half of the samples leave
{halves.mean():.2f} of it, as (N − n)/(N − 1) says. After five epochs (loss {losses.mean():.2f}) a single sample's
gradient strays {ratio.mean():.1f} times as far from the whole gradient as that is long; from about {equal} samples on
the signal is the larger part. The mean over all batches is the whole gradient, however small they are."""
    return Outcome(
        results=(judge(NOISE_SLOPE, slopes), judge(NOISE_WITHOUT, halves), judge(SINGLE_NOISY, ratio)),
        figures=(figure,),
        text=text,
    )


# Loss by step, by epoch and by second ---------------------------------------------------------------------------------


class BatchSizeResult(NamedTuple):
    """The trainings of a batch size at its best rate.

    Fields:
        rate: the rate whose epochs to the goal are fewest on average.
        losses: on all samples, before training and after every epoch, ``(seeds, epochs + 1)``.
        at_same_rate: the same at rate 0.1.
        seconds: an epoch's, one network alone, compiled before: of every timing.
    """

    rate: float
    losses: np.ndarray
    at_same_rate: np.ndarray
    seconds: np.ndarray

    @property
    def epochs_needed(self) -> np.ndarray:
        """Epochs to the goal; one more than all where it isn't reached."""
        return epochs_to_goal(self.losses)

    @property
    def seconds_needed(self) -> np.ndarray:
        return self.epochs_needed * np.median(self.seconds)

    @property
    def rises(self) -> np.ndarray:
        return rising_share(self.at_same_rate)


def rising_share(losses: np.ndarray) -> np.ndarray:
    """Return the share of epochs that end with a higher loss or with NaN."""
    return (~(np.diff(losses, axis=-1) <= 0)).mean(axis=-1)


def epochs_to_goal(losses: np.ndarray) -> np.ndarray:
    """Return the first epoch with the loss at the goal, on the last axis; the axis's length where there is none."""
    reached = losses <= GOAL
    return np.where(reached.any(axis=-1), reached.argmax(axis=-1), losses.shape[-1])


def best_rate_result(
    settings: Settings, make: Callable, data: fnn.Batch, size: int
) -> tuple[float, np.ndarray, np.ndarray]:
    """Return the best rate, the losses at it, and those at the rate that all sizes share."""

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def train_all_rates(rate, key):
        first, *keys = jax.random.split(key, 2)
        params, state = MODEL.init(first)

        def epoch(carry, key):
            params, state = carry
            found = fnn.train(
                MODEL, LOSS, fnn.sgd(rate), data, epochs=1, batch_size=size, key=key, grad=make, params=params,
                state=state,
            )  # fmt: skip
            return (found.params, found.state), evaluate_loss(data, found.params, found.state)

        _, losses = jax.lax.scan(epoch, (params, state), jax.random.split(keys[0], epochs))
        return jnp.append(evaluate_loss(data, params, state), losses)

    epochs = settings.steps(quick=EPOCHS[size] // 2, full=EPOCHS[size])
    losses = np.asarray(train_all_rates(jnp.asarray(RATES, jnp.result_type(float)), settings.keys_of(MINI_FASTEST)))
    best = epochs_to_goal(losses).mean(axis=1).argmin()
    return RATES[best], losses[best], losses[SAME_RATE]


def evaluate_loss(data: fnn.Batch, params, state) -> jax.Array:
    return LOSS.forward(fnn.predict(MODEL, params, state, data.x), data.y)[0]


def time_epochs(run: Callable, key: jax.Array) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(key))
    return time.perf_counter() - start


def measure_epoch_seconds(settings: Settings, make: Callable, data: fnn.Batch) -> dict[int, np.ndarray]:
    """Return the seconds of an epoch of one network, by batch size.

    Everything is compiled first. The sizes run in turns, and of a few timings the least counts, so that other load on
    the machine affects all sizes equally.
    """
    epochs = {size: 16 if size > 32 else 4 for size in SIZES}
    runs = {
        size: jax.jit(lambda key, size=size: fnn.train(
            MODEL, LOSS, fnn.sgd(0.01), data, epochs=epochs[size], batch_size=size, key=key, grad=make).params)
        for size in SIZES
    }  # fmt: skip
    keys = settings.keys_of(SINGLE_FAST)
    for run in runs.values():
        jax.block_until_ready(run(keys[0]))
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for key in keys:
        for size, run in runs.items():
            seconds[size].append(min(time_epochs(run, key) for _ in range(REPEATS)) / epochs[size])
    return {size: np.array(each) for size, each in seconds.items()}


def by_batch_size(settings: Settings, make: Callable, data: fnn.Batch) -> Outcome:
    seconds = measure_epoch_seconds(settings, make, data)
    by_size = {size: BatchSizeResult(*best_rate_result(settings, make, data, size), seconds[size]) for size in SIZES}
    single, mini, whole = by_size[1], by_size[32], by_size[SAMPLES]
    best_mini = min((32, 128, 256), key=lambda size: by_size[size].seconds_needed.mean())
    best_end = min((1, SAMPLES), key=lambda size: by_size[size].seconds_needed.mean())
    gain = by_size[best_mini].seconds_needed / by_size[best_end].seconds_needed
    results = (
        judge(SINGLE_FAST, seconds[1] / seconds[32], "a processor; one network, one program, compilation excluded"),
        judge(SINGLE_SECONDS, single.seconds_needed / mini.seconds_needed),
        judge(WHOLE_STABLE, whole.rises),
        judge(WHOLE_STABLE_BEST, rising_share(whole.losses), f"rate {whole.rate:.3g}"),
        judge(WHOLE_SLOW, whole.epochs_needed / mini.epochs_needed),
        judge(MINI_FASTEST, gain,
              f"{best_mini} against {batch_size_label(best_end)}"),
        judge(MINI_STABLE, mini.rises),
        judge(MINI_STABLE_BEST, rising_share(mini.losses), f"rate {mini.rate:.3g}"),
    )  # fmt: skip
    rows = tuple(
        (batch_size_label(size), f"{one.rate:.3g}", f"{one.epochs_needed.mean() * SAMPLES / size:.0f}",
         f"{one.epochs_needed.mean():.1f}", f"{1e3 * np.median(one.seconds):.2f}",
         f"{1e3 * one.seconds_needed.mean():.1f}", f"{one.rises.mean():.1%}",
         f"{np.mean(one.epochs_needed < one.losses.shape[1]):.0%}")
        for size, one in by_size.items()
    )  # fmt: skip
    summary = "; ".join(
        f"{batch_size_label(size)}: {one.epochs_needed.mean():.0f} epochs, {1e3 * one.seconds_needed.mean():.0f} ms"
        for size, one in by_size.items()
    )
    timings = {
        batch_size_label(size): tuple(1e3 * np.percentile(one.seconds, (50, 5, 95))) for size, one in by_size.items()
    }
    figures = (
        Figure(
            title="Training loss by step, by epoch and by time, for six batch sizes",
            alternative=f"Training loss against steps, epochs and milliseconds, a curve for each of six batch sizes at "
            f"its best rate. To a loss of {GOAL} — {summary}.",
            panels=tuple(
                lines({batch_size_label(size): curve(one, SAMPLES / size, unit) for size, one in by_size.items()},
                      x=unit, y="training loss", log="xy", subtitle=f"by {unit}", thresholds={"goal": GOAL})
                for unit in ("steps", "epochs", "milliseconds")
            ),
            caption="Means over seeds, on all 512 samples after every epoch. Milliseconds are an epoch's median on the "
            "machine that wrote this page, one network alone.",
        ),
        Figure(
            title="The time of a pass over the data, by batch size",
            alternative="Milliseconds for a pass over the 512 samples by batch size: "
            + ", ".join(f"{name} {value[0]:.2f}" for name, value in timings.items()) + ".",
            panels=(bars(timings, x="milliseconds an epoch", log=True, subtitle="median and nine in ten timings"),),
            caption="The arithmetic is the same for all sizes: what differs is the number of steps, each with a price "
            "of its own, and how much of a step can be done at once.",
        ),
    )  # fmt: skip
    text = f"""With the best rate for each, a training loss of {GOAL} takes — {summary}. Small batches gain more in an
epoch, since they take more steps; large ones gain more in a step. A single sample's epoch takes
{results[0].estimate:.1f} times as long as one in batches of 32: with this small network, on the processor that
wrote this page; another machine has another figure.

The best of 32, 128 and 256 is {best_mini}: it takes {gain.mean():.2f} times the seconds of the better extreme
({batch_size_label(best_end)}). At the same rate of 0.1, {single.rises.mean():.0%} of the epochs with single samples end
with a higher loss, {mini.rises.mean():.0%} with batches of 32 and {whole.rises.mean():.0%} with the whole batch. At the
best rates it is {rising_share(single.losses).mean():.0%}, {rising_share(mini.losses).mean():.0%} and
{rising_share(whole.losses).mean():.0%}: the rate that comes down soonest is near the edge of what is stable."""
    columns = (
        "batch",
        "best rate",
        "steps",
        "epochs",
        "ms an epoch",
        "ms to the goal",
        "epochs that rise at 0.1",
        "seeds there",
    )
    return Outcome(results, figures, (Table(f"To a training loss of {GOAL}", columns, rows),), text)


def curve(one: BatchSizeResult, steps: float, unit: str) -> Curve:
    scale = {"steps": steps, "epochs": 1.0, "milliseconds": 1e3 * float(np.median(one.seconds))}[unit]
    return Curve(np.arange(one.losses.shape[1]) * scale, one.losses.mean(axis=0))


@experiment_part(
    "Noise, steps, epochs and seconds", NOISE_SLOPE, NOISE_WITHOUT, SINGLE_NOISY, SINGLE_FAST, SINGLE_SECONDS,
    WHOLE_STABLE, WHOLE_STABLE_BEST, WHOLE_SLOW, MINI_FASTEST, MINI_STABLE, MINI_STABLE_BEST,
)  # fmt: skip
def batch_sizes(settings: Settings) -> Outcome:
    data = load_samples()
    make = checked_value_and_grad(settings, MODEL, LOSS, fnn.Batch(data.x[:6], data.y[:6]))
    noisy, by_size = gradient_noise(settings, make, data), by_batch_size(settings, make, data)
    return Outcome(noisy.results + by_size.results, noisy.figures + by_size.figures, by_size.tables,
                   f"{noisy.text}\n\n{by_size.text}")  # fmt: skip


EXPERIMENT = Experiment(
    name="descent",
    order=7.1,
    title="Batch sizes in gradient descent",
    introduction="The chapter calls descent by the whole batch stable but slow, by single samples fast but noisy, and "
    "by mini-batches of 32 to 256 the best of both. The noise of a batch's gradient is measured, then a network learns "
    "512 digits in batches of six sizes, each at the best of six rates, compared by step, epoch and second.",
    parts=(batch_sizes,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
