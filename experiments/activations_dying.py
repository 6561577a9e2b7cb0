"""Dying ReLU: units that no training image makes positive, by learning rate and initial bias, and leaky ReLU.

The output of a dead unit and its gradient are 0.
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
    checked_value_and_grad,
    experiment_part,
)
from experiments.harness.figures import Curve, Figure, bars, lines
from experiments.harness.runner import run_command_line
from experiments.shared.data import digits

DYING = {"section": Section.ACTIVATIONS, "seeds": 20, "quick_seeds": 5}

NO_GRADIENT = Claim(
    section=Section.ACTIVATIONS, statistic="exact", name="dead-no-gradient", at_most=0,
    sentence="A dead ReLU unit gets no gradient at all.",
    quantity="largest gradient of its weights and bias over all training images",
)  # fmt: skip
STAYS_FIRST = Claim(
    **DYING, name="dead-first-layer", at_most=0,
    sentence="Once dead, a unit of the first hidden layer stays dead.",
    quantity="share of the units found dead after some epoch that live at the end",
)  # fmt: skip
STAYS_SECOND = Claim(
    **DYING, name="dead-second-layer", at_most=0,
    sentence="Once dead, a unit of the second hidden layer stays dead as well.",
    quantity="share of the units found dead after some epoch that live at the end",
)  # fmt: skip
RARE = Claim(
    **DYING, name="death-rare", at_most=0.01,
    sentence="At a learning rate that suits it, hardly a ReLU unit dies.",
    quantity="share of units that live before training with rate 0.1 and are dead after it",
)  # fmt: skip
FAST_KILLS = Claim(
    **DYING, name="death-by-rate", at_least=0.1,
    sentence="A learning rate ten times as large kills at least a tenth of the units.",
    quantity="share of units that live before training with rate 1 and are dead after it",
)  # fmt: skip
BIAS_KILLS = Claim(
    **DYING, name="death-by-bias", at_least=0.1,
    sentence="A starting bias of −2 leaves at least a tenth of the units dead after training.",
    quantity="share of dead units after training with rate 0.1",
)  # fmt: skip
BIAS_SAVES = Claim(
    **DYING, name="bias-saves", at_most=-0.01,
    sentence="A small positive starting bias, 0.1, saves units that a large learning rate kills.",
    quantity="share of dead units after training with rate 1, less that from a bias of zero",
)  # fmt: skip
LEAKY_ALIVE = Claim(
    **DYING, name="leaky-alive", at_most=0.01,
    sentence="Leaky ReLU cures it: at the large rate hardly a unit ends negative on every image.",
    quantity="share of units that no training image makes positive, after training with rate 1",
)  # fmt: skip
LEAKY_BETTER = Claim(
    **DYING, name="leaky-better", at_least=0.01,
    sentence="Where ReLU units die, the leaky network classifies better by a point or more.",
    quantity="test accuracy on digits after training with rate 1, leaky ReLU's less ReLU's",
)  # fmt: skip

LEAKY = fnn.leaky_relu()
DEATH_RATES = (0.1, 0.3, 1.0)
BIASES = (-2.0, -1.0, 0.0, 0.1, 1.0)


def silent_units(model: fnn.Layer, params, x: jax.Array) -> jax.Array:
    """Return the units that no sample makes positive, ``(hidden layers, units)``; those of a diverged network count."""
    _, _, residuals = model.forward(params, model.init(jax.random.key(0))[1], x, train=False)
    return jnp.stack([~(kept.x > 0).any(0) for kept in residuals[2::2]])


def with_hidden_bias(params, bias):
    """Return the parameters with every hidden bias set to a value."""
    hidden = [part._replace(bias=jnp.full_like(part.bias, bias)) if part else part for part in params[:-1]]
    return (*hidden, params[-1])


def track_silent_units(model: fnn.Layer, grad, data, epochs: int, key: jax.Array, rate, bias):
    """Return the silent units before training and after every epoch, and the test accuracy at the end."""

    def epoch(params, key):
        trained = fnn.train(model, fnn.softmax_cross_entropy, fnn.sgd(rate), data.training, epochs=1, batch_size=32,
                            key=key, params=params, grad=grad)  # fmt: skip
        return trained.params, silent_units(model, trained.params, data.training.x)

    params, state = model.init(key)
    params = with_hidden_bias(params, bias)
    at_start = silent_units(model, params, data.training.x)
    params, later = lax.scan(epoch, params, jax.random.split(key, epochs))
    right = fnn.predict(model, params, state, data.test.x).argmax(-1) == data.test.y
    return jnp.concatenate([at_start[None], later]), right.mean()


def revived_share(dead: np.ndarray) -> np.ndarray:
    """Return the share of units, by seed, that are dead after some epoch and live at the end.

    ``dead`` is (…, seeds, times, units).
    """
    ever = dead.any(-2)
    back = ever & ~dead[..., -1, :]
    together = tuple(axis for axis in range(ever.ndim) if axis != ever.ndim - 2)
    return back.sum(together) / np.maximum(1, ever.sum(together))


@experiment_part(
    "Dying units", NO_GRADIENT, STAYS_FIRST, STAYS_SECOND, RARE, FAST_KILLS, BIAS_KILLS, BIAS_SAVES, LEAKY_ALIVE,
    LEAKY_BETTER,
)  # fmt: skip
def dying_units(settings: Settings) -> Outcome:
    data = digits()
    model, leaky = (fnn.mlp((64, 64, 64, 10), activation) for activation in (fnn.relu, LEAKY))
    both = fnn.serial(fnn.linear(4, 4), fnn.relu, fnn.linear(4, 4), LEAKY, fnn.linear(4, 4))
    few = fnn.Batch(data.training.x[:4, 20:24], data.training.y[:4] % 4)
    grad = checked_value_and_grad(settings, both, fnn.softmax_cross_entropy, few)
    epochs = settings.steps(quick=4, full=12)
    keys = settings.keys_of(RARE)

    def of(model, biases):
        run = partial(track_silent_units, model, grad, data, epochs)
        over_biases = jax.vmap(jax.vmap(run, in_axes=(0, None, None)), in_axes=(None, None, 0))
        over_rates = jax.jit(jax.vmap(over_biases, in_axes=(None, 0, None)))
        return [np.asarray(array) for array in over_rates(keys, jnp.array(DEATH_RATES), jnp.array(biases))]

    dead, accuracy = of(model, BIASES)
    silent_leaky, accuracy_leaky = of(leaky, (0.0,))
    share = dead.mean((-2, -1))
    share_leaky = silent_leaky[:, 0].mean((-2, -1))

    def at(rate, bias):
        return DEATH_RATES.index(rate), BIASES.index(bias)

    params, state = model.init(jax.random.key(settings.seed))
    params = (params[0]._replace(bias=params[0].bias.at[0].set(-100.0)), *params[1:])
    _, grads = grad(model, fnn.softmax_cross_entropy)(params, state, data.training)
    of_dead = max(jnp.abs(grads[0].kernel[:, 0]).max(), jnp.abs(grads[0].bias[0]))

    end = {(rate, bias): share[at(rate, bias)][:, -1] for rate in DEATH_RATES for bias in BIASES}
    died = {rate: (dead[at(rate, 0.0)][:, -1] & ~dead[at(rate, 0.0)][:, 0]).mean((-2, -1)) for rate in DEATH_RATES}
    second = revived_share(dead[..., 1, :])
    better = accuracy_leaky[-1, 0] - accuracy[at(1.0, 0.0)]
    results = (
        judge(NO_GRADIENT, of_dead),
        judge(STAYS_FIRST, revived_share(dead[..., 0, :]),
              "Plain descent; momentum would carry a unit on for a while."),
        judge(STAYS_SECOND, second, "Its inputs are learned: the layer below can bring it back."),
        judge(RARE, died[0.1], f"Before training {share[at(0.1, 0.0)][:, 0].mean():.3f} of them are dead already."),
        judge(FAST_KILLS, died[1.0]),
        judge(BIAS_KILLS, end[0.1, -2.0], f"Before training {share[at(0.1, -2.0)][:, 0].mean():.2f} of them are dead."),
        judge(BIAS_SAVES, end[1.0, 0.1] - end[1.0, 0.0]),
        judge(LEAKY_ALIVE, share_leaky[-1, :, -1]),
        judge(LEAKY_BETTER, better, f"{accuracy_leaky[-1, 0].mean():.3f} against {accuracy[at(1.0, 0.0)].mean():.3f}."),
    )  # fmt: skip
    epoch_axis = np.arange(epochs + 1)
    rates_summary = ", ".join(f"{rate:g}: {end[rate, 0.0].mean():.3f}" for rate in DEATH_RATES)
    biases_summary = ", ".join(f"{bias:g}: {end[0.1, bias].mean():.3f}" for bias in BIASES)
    figures = (
        Figure(
            title="Dead units over training",
            alternative=f"Share of dead ReLU units by epoch. At the end by learning rate, {rates_summary}; by starting "
            f"bias at rate 0.1, {biases_summary}.",
            panels=(
                lines({f"rate {rate:g}": Curve(epoch_axis, share[at(rate, 0.0)].mean(0)) for rate in DEATH_RATES}
                      | {f"leaky, rate {rate:g}": Curve(epoch_axis, share_leaky[i].mean(0))
                         for i, rate in enumerate(DEATH_RATES)},
                      x="epoch", y="share of units", subtitle="bias 0", points=True),
                lines({f"bias {bias:g}": Curve(epoch_axis, share[at(0.1, bias)].mean(0)) for bias in BIASES},
                      x="epoch", y="share of units", subtitle="rate 0.1", points=True),
            ),
            caption="64-64-64-10 on digits, He's initialization, plain descent in batches of 32; mean over the seeds. "
            "Leaky units are counted where no image makes them positive; they still learn.",
        ),
        Figure(
            title="Test accuracy by learning rate",
            alternative="Test accuracy by learning rate, ReLU beside leaky ReLU, from biases of zero: "
            + ", ".join(f"rate {rate:g} {accuracy[at(rate, 0.0)].mean():.3f} and {accuracy_leaky[i, 0].mean():.3f}"
                        for i, rate in enumerate(DEATH_RATES)) + ".",
            panels=(bars(
                {f"{name}, rate {rate:g}": (values.mean(), values.min(), values.max())
                 for i, rate in enumerate(DEATH_RATES)
                 for name, values in (("ReLU", accuracy[at(rate, 0.0)]), ("leaky", accuracy_leaky[i, 0]))},
                x="test accuracy (mean, least, most)"),),
        ),
    )  # fmt: skip
    text = f"""By learning rate, the share of dead units at the end from biases of zero is {rates_summary}; by starting
bias, at rate 0.1, {biases_summary}. Before training, from biases of zero, it is
{share[at(0.1, 0.0)][:, 0].mean():.3f}. A dead unit gets a gradient of exactly zero, as the chapter says. That it never
updates again is true of the first hidden layer, whose inputs stay what they are; of the dead units of the second layer
{100 * second.mean():.1f}% live again at the end, since the layer below continues to learn.

Leaky ReLU at rate 1 ends with {share_leaky[-1, :, -1].mean():.3f} of its units negative on every image, and classifies
{100 * accuracy_leaky[-1, 0].mean():.1f}% of the test images, where ReLU has
{100 * accuracy[at(1.0, 0.0)].mean():.1f}%: its gradient for negative inputs is not 0, but only a hundredth."""
    return Outcome(results, figures, text=text)


EXPERIMENT = Experiment(
    name="activations_dying",
    order=2.2,
    title="Dying ReLU",
    introduction="""A ReLU whose input is negative for every sample gives zero, and its gradient is zero too: it is said
to stay dead. A network on digits is trained at three learning rates from five starting biases: how often units die, at
which rates and biases, and whether leaky ReLU prevents it.""",
    parts=(dying_units,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
