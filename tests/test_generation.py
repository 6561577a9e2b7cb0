"""Generation: the tokens of caches are those of the whole sequence run again for each token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from tests.cases import KEY

VOCABULARY = 7
GPT = fnn.gpt(VOCABULARY, 8, 4, 2, 2, dropout=0.3)
RECURRENT = fnn.serial(
    fnn.embedding(VOCABULARY, 4),
    fnn.sinusoidal_positions(8, 4),
    fnn.rotary,
    fnn.batch_norm(4),
    fnn.skip(fnn.serial(fnn.lstm(4, 4), fnn.mixed_precision(fnn.gru(4, 4)), fnn.rnn(4, 4))),
    fnn.recompute(fnn.self_attention(4, 2, causal=True, rotary=True, key_value_heads=1, block_size=2)),
    fnn.swiglu(4, 6),
    fnn.linear(4, VOCABULARY),
)
PROMPT = jnp.array([[1, 5, 2], [6, 0, 0]])


def sharpened(model):
    """Parameters far from their start, so that the most probable tokens change along a sequence; drawn by NumPy."""
    rng = np.random.default_rng(3)
    params, state = jax.eval_shape(model.init, KEY)
    return (
        jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params),
        jax.tree.map(lambda leaf: jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype), state),
    )


def of_whole_sequences(model, params, state, tokens, length, temperature):
    """As the docstring says: the whole sequence for each token, padded on the right, where nothing earlier sees it."""
    padded = jnp.pad(tokens, ((0, 0), (0, length)))
    run = jax.jit(lambda tokens: model.forward(params, state, tokens, train=False)[0])
    for number in range(length):
        place = tokens.shape[1] + number
        logits = run(padded[:, :-1])[:, place - 1]
        drawn = jax.random.fold_in(KEY, number)
        chosen = jax.random.categorical(drawn, logits / temperature) if temperature else logits.argmax(axis=-1)
        padded = padded.at[:, place].set(chosen)
    return padded


@pytest.mark.parametrize(("model", "temperature"), [(GPT, 0.7), (RECURRENT, 0.0)], ids=["gpt", "recurrent"])
def test_tokens_are_those_of_whole_sequences(model, temperature):
    params, state = sharpened(model)
    made = fnn.generate(model, params, state, PROMPT, 6, temperature=temperature, key=KEY)
    assert made.shape == (2, 9)
    assert made.dtype == PROMPT.dtype
    np.testing.assert_array_equal(made[:, :3], PROMPT)
    np.testing.assert_array_equal(made, of_whole_sequences(model, params, state, PROMPT, 6, temperature))
    assert len(np.unique(made)) > 2


def test_a_layer_that_needs_all_positions_gets_them():
    """Attention to all positions changes the output at earlier ones: nothing can be kept."""
    model = fnn.serial(fnn.embedding(VOCABULARY, 4), fnn.self_attention(4, 2), fnn.linear(4, VOCABULARY))
    params, state = sharpened(model)
    made = PROMPT
    for _ in range(2):
        logits = fnn.predict(model, params, state, made)
        made = jnp.concatenate([made, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
    np.testing.assert_array_equal(fnn.generate(model, params, state, PROMPT, 2, temperature=0.0), made)


PARAMS, STATE = jax.eval_shape(GPT.init, KEY)
BAD = {
    "no key": ({"temperature": 1.0}, r"generate\(key\): expected a random key for a temperature above 0, got key=None"),
    "a number as key": ({"key": 0}, r"generate\(key\): expected one random key, got 0"),
    "cold": ({"temperature": -1.0}, r"generate\(temperature\): expected a number of at least 0, got -1"),
    "no length": ({"length": 0}, r"generate\(length\): expected a positive integer, got 0"),
    "floats": ({"prompt": PROMPT.astype(float)}, r"generate\(prompt\): expected tokens of an integer dtype, got float"),
    "one sequence": (
        {"prompt": PROMPT[0]},
        r"generate\(prompt\): expected tokens of shape .*\[None, :\]",
    ),
    "no token": ({"prompt": PROMPT[:, :0]}, r"generate\(prompt\): expected tokens of shape .* got shape \(2, 0\)"),
    "an unknown token": (
        {"prompt": PROMPT + 1},
        r"generate: layers\[0\]: embedding\(7, 4\): expected tokens from 0 to 6, got 7 at index \(1, 0\)",
    ),
    "too many": (
        {"length": 7},
        r"generate: learned_positions\(8, 4\): expected sequences of at most 8 .*, got 9",
    ),
    "another model's": ({"params": ()}, r"generate\(params\): expected the tree structure of what the model's init"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes, message, as_for_users):
    usual = {"model": GPT, "params": PARAMS, "state": STATE, "prompt": PROMPT, "length": 2, "temperature": 0.0}
    with pytest.raises((ValueError, TypeError), match=message):
        fnn.generate(**usual | changes)


def test_a_model_that_drops_positions_is_refused(as_for_users):
    model = fnn.serial(fnn.embedding(7, 4), fnn.last_step)
    with pytest.raises(ValueError, match=r"generate: expected a model that gives logits .* got \(2, 4\)"):
        fnn.generate(model, *jax.jit(model.init)(KEY), PROMPT, 1, temperature=0.0)
