"""Language: a small GPT and an LSTM predict the next character of Python's own documentation.

``python -m experiments.language`` compares their losses with those of n-gram models; the full run has nanoGPT's shape
for a CPU.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.harness.claims import Claim, Section, interval, judge
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
from experiments.shared.characters import (
    NANO,
    SMALL,
    Size,
    Text,
    cut_windows,
    gpt_of,
    lstm_of,
    python_topics,
    window_drawer,
    window_losses,
)
from experiments.shared.fresh_batches import train_on_draws
from experiments.shared.ngrams import count_ngrams, ngram_losses

VASWANI = "Vaswani et al., Attention is all you need, 2017"
KAPLAN = "Kaplan et al., Scaling laws for neural language models, 2020"
LONGEST = 6
SEEDS = {"seeds": 3, "quick_seeds": 3}
FOUNDATION = SEEDS | {"section": Section.WHY_FOUNDATION}

START = Claim(
    **SEEDS, section=Section.LOSSES, name="language-start", at_most=0,
    source="Press and Wolf, Using the output embedding to improve language models, 2017, for the tied output",
    sentence="An untrained GPT is better than chance: its tied output makes repeated characters likely.",
    quantity="cross-entropy of a test character in nats, minus ln V for V characters",
)  # fmt: skip
BIGRAM = Claim(
    **FOUNDATION, name="language-bigram", source=VASWANI, at_most=0,
    sentence="Trained for minutes, a GPT predicts the next character better than pairs of characters do.",
    quantity="cross-entropy of a test character in nats, minus the bigram model's",
)  # fmt: skip
NGRAMS = Claim(
    **FOUNDATION, name="language-ngrams", source="Chen and Goodman, An empirical study of smoothing techniques, 1999",
    at_least=0, sentence=f"The best model that counts runs of up to {LONGEST} characters is still better.",
    quantity="cross-entropy of a test character in nats, minus the best n-gram model's",
)  # fmt: skip
RECURRENT = Claim(
    **FOUNDATION, name="language-lstm", source=f"{KAPLAN}, who find the opposite at scale", at_least=0,
    sentence="So is an LSTM after as many steps.",
    quantity="cross-entropy of a test character in nats, minus the LSTM's, seed by seed",
)  # fmt: skip
CONTEXT = Claim(
    **FOUNDATION, name="language-context", source=KAPLAN, at_least=0.1,
    sentence="The GPT uses its context: characters late in the window cost 0.1 nats less than early ones.",
    quantity="cross-entropy in the first quarter of the window minus that in the last, nats",
)  # fmt: skip


def checked_language_value_and_grad(settings: Settings):
    """Return the settings' gradients after checking a small GPT and a small LSTM."""
    tokens, following = jnp.array([[0, 2, 1], [1, 1, 0]]), jnp.array([[2, 1, 0], [1, 0, 2]])
    recurrent = fnn.serial(fnn.embedding(3, 2), fnn.lstm(2, 2), fnn.linear(2, 3))
    for model in (fnn.gpt(3, 3, 4, 2, 1), recurrent):
        grad = checked_value_and_grad(settings, model, fnn.softmax_cross_entropy, (tokens, following))
    return grad


@experiment_part("Predicting the next character", START, BIGRAM, NGRAMS, RECURRENT, CONTEXT)
def next_character(settings: Settings) -> Outcome:
    grad = checked_language_value_and_grad(settings)
    size = NANO if settings.full else SMALL
    text = python_topics()
    windows = cut_windows(text.test, size.context, size.windows)
    keys = settings.keys_of(BIGRAM)
    models = {"GPT": gpt_of(size, len(text.characters)), "LSTM": lstm_of(size, len(text.characters))}
    trained, losses = {}, {}
    for name, model in models.items():
        trained[name] = train_on_draws(
            keys, jnp.asarray(text.training), model=model, loss=fnn.softmax_cross_entropy, steps=size.steps, grad=grad,
            optimizer=fnn.adam(size.rate), draw=window_drawer(size.batch, size.context),
        )  # fmt: skip
        found = window_losses(trained[name].params, trained[name].state, jnp.asarray(windows), model=model)
        losses[name] = np.asarray(found, float)
    starts = jax.vmap(models["GPT"].init)(keys)
    at_start = np.asarray(window_losses(*starts, jnp.asarray(windows), model=models["GPT"]), float).mean((1, 2))
    counts = count_ngrams(text.training, len(text.characters), LONGEST)
    ngrams = [ngram_losses(counts, windows, order).mean() for order in range(1, LONGEST + 1)]
    gpt, lstm = (values.mean((1, 2)) for values in losses.values())
    quarter, by_position = size.context // 4, losses["GPT"].mean(1)
    best = int(np.argmin(ngrams))
    results = (
        judge(START, at_start - math.log(len(text.characters))),
        judge(BIGRAM, gpt - ngrams[1]),
        judge(NGRAMS, gpt - ngrams[best], f"The best has {best + 1} characters and {ngrams[best]:.3f} nats."),
        judge(RECURRENT, gpt - lstm),
        judge(CONTEXT, by_position[:, :quarter].mean(1) - by_position[:, -quarter:].mean(1)),
    )
    measured = {f"{order}-gram": value for order, value in enumerate(ngrams, 1)}
    measured |= {name: values.mean() for name, values in (("LSTM", lstm), ("GPT", gpt))}
    return Outcome(
        results,
        (loss_figure(measured, trained, lstm, gpt), position_figure(losses, counts, windows, best + 1)),
        (size_table(models, size, measured),),
        describe(size, text, measured),
        board=samples(models["GPT"], trained["GPT"], text, windows, settings),
    )


def samples(model: fnn.Layer, trained, text: Text, windows: np.ndarray, settings: Settings, prompt: int = 8) -> str:
    """Return continuations of the beginnings of four test windows by the first seed's network."""
    params, state = jax.tree.map(lambda leaf: leaf[0], (trained.params, trained.state))
    context = windows.shape[1] - 1
    given = jnp.asarray(windows[:: len(windows) // 4, :prompt][:4])
    written = fnn.generate(
        model, params, state, given, context - prompt, temperature=0.8, key=jax.random.key(settings.seed)
    )
    return "\n".join(f"{text.decode(row[:prompt])!r} → {text.decode(row[prompt:])!r}" for row in np.asarray(written))


def loss_figure(measured: dict[str, float], trained, lstm: np.ndarray, gpt: np.ndarray) -> Figure:
    summary = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
    bounds = {"LSTM": interval(lstm), "GPT": interval(gpt)}
    curves = {name: np.asarray(run.losses, float).mean(0) for name, run in trained.items()}
    runs = {name: values[: len(values) // 10 * 10].reshape(-1, 10).mean(1) for name, values in curves.items()}
    return Figure(
        "Test cross-entropy by model, and training cross-entropy by step",
        f"Cross-entropy of the next character by model: {summary}. Training losses of GPT and LSTM by step.",
        (
            bars({name: (value, *bounds[name]) if name in bounds else value for name, value in measured.items()},
                 x="test cross-entropy (nats)"),
            lines({name: Curve(10 * (1 + np.arange(len(values))), values) for name, values in runs.items()},
                  x="step", y="training cross-entropy (nats)", thresholds={"bigrams": measured["2-gram"]}),
        ),
        "The n-gram models see as much of a window as the networks do. Training losses are means over ten steps.",
    )  # fmt: skip


def position_figure(losses: dict[str, np.ndarray], counts, windows: np.ndarray, best: int) -> Figure:
    by_position = {name: values.mean((0, 1)) for name, values in losses.items()}
    by_position[f"{best}-gram"] = ngram_losses(counts, windows, best).mean(0)
    half = windows.shape[1] // 2
    summary = "; ".join(
        f"{name} {values[:half].mean():.2f} in the first half, {values[half:].mean():.2f} in the second"
        for name, values in by_position.items()
    )
    return Figure(
        "Test cross-entropy by the number of characters before",
        f"Cross-entropy by the position in the window. {summary}.",
        (lines({name: Curve(1 + np.arange(len(values)), values) for name, values in by_position.items()},
               x="characters before", y="test cross-entropy (nats)"),),
    )  # fmt: skip


def size_table(models: dict[str, fnn.Layer], size: Size, measured: dict[str, float]) -> Table:
    rows = []
    for name, model in models.items():
        params, _ = jax.eval_shape(model.init, jax.random.key(0))
        rows.append((name, sum(leaf.size for leaf in jax.tree.leaves(params)), f"{measured[name]:.3f}"))
    title = f"{size.steps} steps on batches of {size.batch} windows of {size.context} characters"
    return Table(title, ("network", "parameters", "test cross-entropy (nats)"), tuple(rows))


def describe(size: Size, text: Text, measured: dict[str, float]) -> str:
    summary = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
    return (
        f"The text has {len(text.training) + len(text.test):,} characters of {len(text.characters)} kinds. It comes "
        f"with Python, and differs between its versions. Nats for a character of its last tenth: {summary}; by chance "
        f"{math.log(len(text.characters)):.2f}.\n\nThe n-gram models mix the counts of runs of all lengths in the "
        "training text by Witten and Bell's rule. The untrained GPT's output is close to the embedding of the last "
        "character, so that it predicts repetition, which spaces bring. The networks were trained on "
        f"{size.steps * size.batch * size.context / len(text.training):.1f} times as many characters as it has. Below "
        "are continuations of the first characters of test windows, drawn from the first GPT at temperature 0.8."
    )


EXPERIMENT = Experiment(
    name="language",
    order=10.9,
    title="Language: a small GPT on Python's documentation",
    introduction="A GPT and an LSTM learn to predict the next character of the texts that Python's help() shows. Their "
    "losses on the last tenth of the text are compared with those of n-gram models. The quick run trains two layers of "
    "32 features, the full run nanoGPT's shape for a CPU.",
    parts=(next_character,),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
