"""Attention: order, causal masks, associative recall and induction.

``python -m experiments.attention`` computes what self-attention can't depend on, and trains small networks on two
problems that need a look-up.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
from experiments.shared.fresh_batches import predict_draw, train_on_draws

VASWANI = "Vaswani et al., Attention is all you need, 2017"
OLSSON = "Olsson et al., In-context learning and induction heads, 2022"
EXACT = {"section": Section.WHY_FOUNDATION, "statistic": "exact"}
TRAINED = {"section": Section.WHY_FOUNDATION, "seeds": 20, "quick_seeds": 3}

WITHOUT_ORDER = Claim(
    **EXACT, name="attention-without-order", source=VASWANI, at_most=1e-5,
    sentence="Without positions or a mask self-attention has no order: permuted inputs give permuted outputs.",
    quantity="largest difference of an output, over the largest output",
)  # fmt: skip
CAUSAL = Claim(
    **EXACT, name="attention-causal", source=VASWANI, at_least=0, at_most=0,
    sentence="Under a causal mask the gradient of an output by every later input is exactly zero.",
    quantity="largest |∂y[t]/∂x[s]| for s > t",
)  # fmt: skip
ONE_CAUSAL = Claim(
    **EXACT, name="attention-one-causal-layer", at_most=1e-5,
    source="Haviv et al., Transformer language models without positional encodings still learn positions, 2022",
    sentence="The last output of one causal layer without positions doesn't depend on the order of earlier inputs.",
    quantity="largest difference of the last output after a permutation of earlier inputs, over the largest output",
)  # fmt: skip
TWO_CAUSAL = Claim(
    name="attention-two-causal-layers", section=Section.WHY_FOUNDATION, seeds=100, quick_seeds=20, at_least=0.01,
    source=ONE_CAUSAL.source,
    sentence="That of two causal layers does: the mask alone tells positions apart.",
    quantity="the same difference for two layers with skip connections, random parameters",
)  # fmt: skip
RECALL = Claim(
    **TRAINED, name="attention-recall", at_least=0.95,
    source="Ba et al., Using fast weights to attend to the recent past, 2016, for the problem",
    sentence="One layer of attention learns to recall the value that belongs to a key, 95% right.",
    quantity="accuracy on new sequences; 0.125 by chance",
)  # fmt: skip
RECALL_LSTM = Claim(
    **TRAINED, name="attention-recall-lstm", at_least=0.3, source=RECALL.source,
    sentence="An LSTM of the same width is at least 30 points worse after as many steps.",
    quantity="accuracy of attention minus that of the LSTM, seed by seed",
)  # fmt: skip
TWO_LAYERS = Claim(
    **TRAINED, name="attention-two-layers", source=OLSSON, at_least=0.6,
    sentence="Two layers of attention learn induction: after A, to predict what followed A before.",
    quantity="accuracy in the second half of new sequences; at most 0.825",
)  # fmt: skip
ONE_LAYER = Claim(
    **TRAINED, name="attention-one-layer", at_least=0.1,
    source="Elhage et al., A mathematical framework for transformer circuits, 2021",
    sentence="One layer can't: it stays at least 10 points behind.",
    quantity="accuracy of two layers minus that of one, seed by seed",
)  # fmt: skip
NO_POSITIONS = Claim(
    **TRAINED, name="attention-no-positions", source=ONE_CAUSAL.source, at_least=0.05,
    sentence="The causal mask replaces positions only in part: without them two layers stay 5 points behind or more.",
    quantity="accuracy with positions minus that without them, seed by seed",
)  # fmt: skip

KEYS, VALUES, WIDTH = 8, 8, 32
ALPHABET, CONTEXT, JUMP = 8, 32, 0.2
RECALL_BATCH, INDUCTION_BATCH, TEST_COPIES = 64, 16, 16
RECALL_STEPS, INDUCTION_STEPS = 300, 800
RECALL_ADAM, INDUCTION_ADAM = fnn.adam(1e-2), fnn.adam(5e-3)


def checked_attention_value_and_grad(settings: Settings, *, last: bool):
    """Return the settings' gradients after checking a small network with the layers and the loss of a problem."""
    tokens = jnp.array([[0, 2, 1], [1, 1, 0]])
    layers = [
        fnn.embedding(3, 4), fnn.learned_positions(3, 4), fnn.skip(fnn.self_attention(4, 2, causal=not last)),
        *((fnn.lstm(4, 4), fnn.last_step) if last else ()), fnn.linear(4, 3),
    ]  # fmt: skip
    labels = jnp.array([0, 2]) if last else jnp.array([[2, 1, 0], [1, 0, 2]])
    return checked_value_and_grad(settings, fnn.serial(*layers), fnn.softmax_cross_entropy, (tokens, labels))


# What attention can't depend on ---------------------------------------------------------------------------------------


def largest_difference(one, other) -> float:
    return float(jnp.abs(one - other).max() / jnp.abs(other).max())


def outputs(layer: fnn.Layer, key: jax.Array, x: jax.Array) -> jax.Array:
    params, state = layer.init(key)
    return layer.forward(params, state, x, train=True)[0]


def later_gradient(key: jax.Array, x: jax.Array, position: int) -> float:
    """Return the largest gradient of a causal output at a position by later inputs."""
    layer = fnn.self_attention(x.shape[-1], 4, causal=True)
    params, state = layer.init(key)
    y, _, residuals = layer.forward(params, state, x, train=True)
    dy = jnp.zeros_like(y).at[:, position].set(1.0)
    return float(jnp.abs(layer.backward(residuals, dy)[1][:, position + 1 :]).max())


@jax.jit
def order_dependence(keys: jax.Array, x: jax.Array, order: jax.Array) -> jax.Array:
    """Return how much the last output of two causal layers changes when inputs are permuted, for each key."""
    layer = fnn.serial(*(fnn.skip(fnn.self_attention(x.shape[-1], 4, causal=True)) for _ in range(2)))

    def one(key):
        permuted, ordered = (outputs(layer, key, x)[:, -1] for x in (x[:, order], x))
        return jnp.abs(permuted - ordered).max() / jnp.abs(ordered).max()

    return jax.vmap(one)(keys)


@experiment_part("Order and masks", WITHOUT_ORDER, CAUSAL, ONE_CAUSAL, TWO_CAUSAL)
def order(settings: Settings) -> Outcome:
    keys = settings.keys_of(TWO_CAUSAL)
    time, features = 12, 16
    x = jax.random.normal(jax.random.key(settings.seed), (2, time, features))
    permuted = np.random.default_rng(settings.seed).permutation(time)
    # Only the earlier inputs change places.
    earlier = np.append(np.random.default_rng(settings.seed).permutation(time - 1), time - 1)
    free, causal = fnn.self_attention(features, 4), fnn.self_attention(features, 4, causal=True)
    results = (
        judge(WITHOUT_ORDER, largest_difference(outputs(free, keys[0], x[:, permuted]),
                                                outputs(free, keys[0], x)[:, permuted])),
        judge(CAUSAL, later_gradient(keys[0], x, time // 2)),
        judge(ONE_CAUSAL, largest_difference(outputs(causal, keys[0], x[:, earlier])[:, -1],
                                             outputs(causal, keys[0], x)[:, -1])),
        judge(TWO_CAUSAL, np.asarray(order_dependence(keys, x, jnp.asarray(earlier)), float)),
    )  # fmt: skip
    text = (
        "An output of attention is a sum over positions, which has no order: permuted inputs give permuted outputs, to "
        f"{format_number(results[0].estimate, 1)}. A causal mask gives every position another set to attend to. The "
        "last position attends to all, so in one layer the order of the others doesn't matter to it, to "
        f"{format_number(results[2].estimate, 1)}. "
        "In a second layer it attends to positions that have seen different sets, and its output changes by "
        f"{results[3].estimate:.1%}."
    )
    return Outcome(results, text=text)


# Associative recall ---------------------------------------------------------------------------------------------------


def draw_pairs(key: jax.Array, copies: jax.Array) -> fnn.Batch:
    """Return sequences of all keys, each as one token with a value, then a key alone, whose value is the label.

    ``copies`` has one entry for each run of RECALL_BATCH sequences.
    """
    order_key, value_key, chosen_key = jax.random.split(key, 3)
    samples = RECALL_BATCH * copies.shape[0]
    keys = jax.random.permutation(order_key, jnp.tile(jnp.arange(KEYS), (samples, 1)), axis=1, independent=True)
    values = jax.random.randint(value_key, (samples, KEYS), 0, VALUES)
    chosen = jax.random.randint(chosen_key, (samples, 1), 0, KEYS)
    asked, label = (jnp.take_along_axis(array, chosen, axis=1) for array in (keys, values))
    tokens = jnp.concatenate([keys * VALUES + values, KEYS * VALUES + asked], axis=1)
    return fnn.Batch(tokens, label[:, 0])


def recaller(kind: str) -> fnn.Layer:
    """Return a network of an embedding, one layer of attention or an LSTM, and a linear layer for the last position."""
    middle = fnn.self_attention(WIDTH, 1) if kind == "attention" else fnn.lstm(WIDTH, WIDTH)
    return fnn.serial(fnn.embedding(KEYS * (VALUES + 1), WIDTH), middle, fnn.last_step, fnn.linear(WIDTH, VALUES))


class Scores(NamedTuple):
    """The accuracy of every seed, the mean loss by step, and the parameters."""

    accuracy: np.ndarray
    losses: np.ndarray
    params: tuple


def train_and_score(settings: Settings, keys, model: fnn.Layer, draw, **given) -> Scores:
    """Train on fresh batches, and measure the accuracy on new sequences in the second half of their labels."""
    trained = train_on_draws(
        keys, jnp.zeros(1), model=model, loss=fnn.softmax_cross_entropy, draw=draw, **given
    )  # fmt: skip
    test_key = jax.random.key(settings.seed + 10_000)
    test, predicted = predict_draw(
        trained.params, trained.state, test_key, jnp.zeros(TEST_COPIES), model=model, draw=draw
    )
    is_right = np.asarray(predicted.argmax(-1) == test.y)
    if test.y.ndim == 2:
        is_right = is_right[..., test.y.shape[1] // 2 :]
    accuracy = is_right.reshape(len(keys), -1).mean(1)
    return Scores(accuracy, np.asarray(trained.losses, float).mean(0), trained.params)


def learning_figure(title: str, found: dict[str, Scores], thresholds: dict[str, float]) -> Figure:
    summary = ", ".join(f"{name} {scores.accuracy.mean():.1%}" for name, scores in found.items())
    return Figure(
        title, f"Training loss by step, and accuracy on new sequences: {summary}.",
        (lines({name: Curve(1 + np.arange(len(scores.losses)), scores.losses) for name, scores in found.items()},
               x="step", y="cross-entropy (nats)"),
         bars({name: (scores.accuracy.mean(), *interval(scores.accuracy)) for name, scores in found.items()},
              x="accuracy", thresholds=thresholds)),
        "Mean loss over seeds; accuracies with their intervals. Every step has a new batch.",
    )  # fmt: skip


@experiment_part("Associative recall", RECALL, RECALL_LSTM)
def recall(settings: Settings) -> Outcome:
    grad = checked_attention_value_and_grad(settings, last=True)
    keys = settings.keys_of(RECALL)
    given = {"optimizer": RECALL_ADAM, "grad": grad, "steps": RECALL_STEPS}
    found = {
        kind: train_and_score(settings, keys, recaller(kind), draw_pairs, **given) for kind in ("attention", "LSTM")
    }
    attention, lstm = (scores.accuracy for scores in found.values())
    results = (judge(RECALL, attention), judge(RECALL_LSTM, attention - lstm))
    figure = learning_figure("Associative recall: loss by step, and accuracy", found, {"by chance": 1 / VALUES})
    table = jnp.asarray(found["attention"].params[0].table[0])
    query, key_map = (getattr(found["attention"].params[1], name) for name in ("query", "key"))
    asked = table[KEYS * VALUES :] @ query.kernel[0] + query.bias[0]
    pairs = (table[: KEYS * VALUES] @ key_map.kernel[0] + key_map.bias[0]).reshape(KEYS, VALUES, -1).mean(1)
    match = np.asarray(asked @ pairs.T) / WIDTH**0.5
    matched = Figure(
        "Attention scores by the key asked for and the key of the pair",
        f"Products of queries and keys: {np.trace(match) / KEYS:.1f} on average for pairs with the key asked for, "
        f"{(match.sum() - np.trace(match)) / (KEYS * (KEYS - 1)):.1f} for the others.",
        (heatmap(match, rows=range(KEYS), columns=range(KEYS), x="key of the pair", y="key asked for", value="score",
                 diverging=True),),
        "Of the first seed, means over the values of a pair.",
    )  # fmt: skip
    text = (
        f"After {given['steps']:,} steps attention recalls {attention.mean():.1%} of the values, the LSTM "
        f"{lstm.mean():.1%}. {KEYS} pairs of a key and a value precede the key. Attention compares it with all. "
        "The state of an LSTM has to keep every pair, since any of them may be the one that is needed."
    )
    return Outcome(results, (figure, matched), text=text)


# Induction ------------------------------------------------------------------------------------------------------------


def draw_walks(key: jax.Array, copies: jax.Array) -> fnn.Batch:
    """Return walks along a permutation of the alphabet, another for every sequence, with jumps, and the next tokens.

    A symbol is followed by its image, or in a fifth of the steps by a symbol drawn at random.
    """
    order_key, jump_key, symbol_key = jax.random.split(key, 3)
    samples = INDUCTION_BATCH * copies.shape[0]
    table = jnp.tile(jnp.arange(ALPHABET), (samples, 1))
    image = jax.random.permutation(order_key, table, axis=1, independent=True)
    is_jump = jax.random.bernoulli(jump_key, JUMP, (CONTEXT + 1, samples))
    drawn = jax.random.randint(symbol_key, (CONTEXT + 1, samples), 0, ALPHABET)

    def step(symbol, given):
        jump, other = given
        following = jnp.where(jump, other, jnp.take_along_axis(image, symbol[:, None], axis=1)[:, 0])
        return following, following

    _, tokens = lax.scan(step, drawn[0], (is_jump, drawn))
    return fnn.Batch(tokens[:-1].T, tokens[1:].T)


def looker(layers: int, *, with_positions: bool = True) -> fnn.Layer:
    """Return a network of attention alone: an embedding, causal layers with skip connections, a linear layer."""
    positions = (fnn.learned_positions(CONTEXT, WIDTH),) if with_positions else ()
    attention = [fnn.skip(fnn.self_attention(WIDTH, 2, causal=True)) for _ in range(layers)]
    return fnn.serial(fnn.embedding(ALPHABET, WIDTH), *positions, *attention, fnn.linear(WIDTH, ALPHABET))


@experiment_part("Induction", TWO_LAYERS, ONE_LAYER, NO_POSITIONS)
def induction(settings: Settings) -> Outcome:
    grad = checked_attention_value_and_grad(settings, last=False)
    keys = settings.keys_of(TWO_LAYERS)
    given = {"optimizer": INDUCTION_ADAM, "grad": grad, "steps": INDUCTION_STEPS}
    models = {
        "two layers": looker(2),
        "one layer": looker(1),
        "two layers, no positions": looker(2, with_positions=False),
    }
    found = {name: train_and_score(settings, keys, model, draw_walks, **given) for name, model in models.items()}
    two, one, without = (scores.accuracy for scores in found.values())
    results = (judge(TWO_LAYERS, two), judge(ONE_LAYER, two - one), judge(NO_POSITIONS, two - without))
    best = 1 - JUMP + JUMP / ALPHABET
    figure = learning_figure(
        "Induction: loss by step, and accuracy", found, {"by chance": 1 / ALPHABET, "at most": best}
    )
    text = (
        "Every sequence walks along a permutation of its own, so what follows a symbol can only be learned from the "
        f"sequence itself. After {given['steps']:,} steps two layers predict {two.mean():.1%} of the next symbols, one "
        f"layer {one.mean():.1%}, two layers without positions {without.mean():.1%}. A fifth of the steps are jumps, "
        f"so that {best:.1%} is the most.\n\nOne layer finds the earlier A by its content, and reads A there. It "
        "needs the symbol after A, which a first layer has to move one position on. Without positions the first layer "
        "has only the mask to tell which symbol is the one before."
    )
    return Outcome(results, (figure,), text=text)


EXPERIMENT = Experiment(
    name="attention",
    order=10.8,
    title="Attention: order, masks and look-up",
    introduction="Self-attention is a weighted sum over positions. What it can't depend on is computed exactly: order "
    "without positions, the future under a causal mask. Then small networks learn to look up the value of a key, and "
    "to continue a sequence as it continued before.",
    parts=(order, recall, induction),
)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT)
