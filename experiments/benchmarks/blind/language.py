"""A small language model by hand: tied embeddings, two normalizations, a skip connection and a smoothed loss."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind.model import Model, jax_normal

BATCH, TIME, WORDS, WIDTH, HIDDEN = 3, 4, 7, 5, 6
SMOOTHING, EPSILON = 0.1, 1e-5
TOKENS = np.array([[1, 4, 2, 0], [3, 3, 6, 5], [2, 1, 0, 0]])
TARGETS = np.array([[4, 2, 5, 0], [3, 6, 5, 1], [1, 6, 0, 0]])


def smoothed(targets, dtype):
    """Return the target distributions of the words, with some probability for all of them."""
    return (1 - SMOOTHING) * jax.nn.one_hot(targets, WORDS, dtype=dtype) + SMOOTHING / WORDS


def language_loss(params, tokens, targets, class_weights):
    """Return the weighted, smoothed cross-entropy of the words that are not padding."""
    x = params["embeddings"][tokens] + params["positions"]
    centred = x - x.mean(-1, keepdims=True)
    normalized = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    hidden = jax.nn.gelu((normalized * params["gain"] + params["shift"]) @ params["up"], approximate=False)
    h = x + hidden @ params["down"]
    h = h / jnp.sqrt((h**2).mean(-1, keepdims=True) + EPSILON) * params["rms_gain"]
    log_probabilities = jax.nn.log_softmax(h @ params["embeddings"].T)
    weights = jnp.where(targets != 0, class_weights[targets], 0)
    losses = -(smoothed(targets, h.dtype) * log_probabilities).sum(-1)
    return (losses * weights).sum() / weights.sum()


def language_gradient(params, tokens, targets, class_weights):
    """Return the gradient of ``language_loss``."""
    embeddings, up, down = params["embeddings"], params["up"], params["down"]
    x = embeddings[tokens] + params["positions"]
    centred = x - x.mean(-1, keepdims=True)
    std = jnp.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
    normalized = centred / std
    inner = normalized * params["gain"] + params["shift"]
    z = inner @ up
    cdf, density = jax.scipy.stats.norm.cdf(z), jnp.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    h = x + z * cdf @ down
    rms = jnp.sqrt((h**2).mean(-1, keepdims=True) + EPSILON)
    output = h / rms * params["rms_gain"]
    weights = jnp.where(targets != 0, class_weights[targets], 0)
    dlogits = jax.nn.softmax(output @ embeddings.T) - smoothed(targets, h.dtype)
    dlogits = dlogits * weights[..., None] / weights.sum()
    doutput = dlogits @ embeddings
    dembeddings = jnp.einsum("btv,btd->vd", dlogits, output)
    drms_gain = (doutput * h / rms).sum((0, 1))
    dscaled = doutput * params["rms_gain"]
    dh = dscaled / rms - h * (dscaled * h).mean(-1, keepdims=True) / rms**3
    ddown = jnp.einsum("btk,btd->kd", z * cdf, dh)
    dz = dh @ down.T * (cdf + z * density)
    dup = jnp.einsum("btd,btk->dk", inner, dz)
    dinner = dz @ up.T
    dgain = (dinner * normalized).sum((0, 1))
    dshift = dinner.sum((0, 1))
    dnormalized = dinner * params["gain"]
    correlation = (dnormalized * normalized).mean(-1, keepdims=True)
    dcentred = (dnormalized - dnormalized.mean(-1, keepdims=True) - normalized * correlation) / std
    dx = dcentred + dh
    dpositions = dx.sum(0)
    dembeddings = dembeddings.at[tokens].add(dx)
    return {
        "embeddings": dembeddings,
        "positions": dpositions,
        "gain": dgain,
        "shift": dshift,
        "up": dup,
        "down": ddown,
        "rms_gain": drms_gain,
    }


def make_language(dtype):
    """Return the parameters, three padded sequences, the next words and the weights of the words."""
    shapes = [(WORDS, WIDTH), (TIME, WIDTH), (WIDTH,), (WIDTH,), (WIDTH, HIDDEN), (HIDDEN, WIDTH), (WIDTH,)]
    embeddings, positions, gain, shift, up, down, rms_gain = jax_normal(dtype, 61, *shapes)
    params = {
        "embeddings": embeddings,
        "positions": positions / 2,
        "gain": 1 + gain / 4,
        "shift": shift / 4,
        "up": up / 2,
        "down": down / 2,
        "rms_gain": 1 + rms_gain / 4,
    }
    return params, (TOKENS, TARGETS, jnp.asarray(np.linspace(0.5, 2, WORDS), dtype))


LANGUAGE = Model("language model", language_loss, language_gradient, make_language)


BUGS = (
    LANGUAGE.bug(
        "language_output_use_forgotten",
        "lost_use",
        "['embeddings']",
        "dembeddings = dembeddings.at[tokens].add(dx)",
        "dembeddings = jnp.zeros_like(embeddings).at[tokens].add(dx)",
    ),
    LANGUAGE.bug(
        "language_input_use_assigned",
        "lost_use unit",
        "['embeddings']",
        "dembeddings = dembeddings.at[tokens].add(dx)",
        "dembeddings = dembeddings.at[np.unique(tokens)].add(dx.reshape(-1, WIDTH)[np.unique(tokens, True)[1]])",
    ),
    LANGUAGE.bug(
        "language_padding_row_kept_at_zero",
        "unit zero mask",
        "['embeddings']",
        '"embeddings": dembeddings,',
        '"embeddings": dembeddings.at[0].set(0),',
    ),
    LANGUAGE.bug(
        "language_positions_averaged",
        "scaled",
        "['positions']",
        "dpositions = dx.sum(0)",
        "dpositions = dx.mean(0)",
    ),
    LANGUAGE.bug(
        "language_layer_norm_mean_a_constant",
        "normalization_term",
        "['positions']",
        "dcentred = (dnormalized - dnormalized.mean(-1, keepdims=True) - normalized * correlation) / std",
        "dcentred = (dnormalized - normalized * correlation) / std",
    ),
    LANGUAGE.bug(
        "language_rms_a_constant",
        "normalization_term",
        "['down']",
        "dh = dscaled / rms - h * (dscaled * h).mean(-1, keepdims=True) / rms**3",
        "dh = dscaled / rms",
    ),
    LANGUAGE.bug(
        "language_gelu_as_its_gate",
        "activation_derivative",
        "['up']",
        "dz = dh @ down.T * (cdf + z * density)",
        "dz = dh @ down.T * cdf",
    ),
    LANGUAGE.bug(
        "language_skip_connection_lost", "lost_path lost_use", "['positions']", "dx = dcentred + dh", "dx = dcentred"
    ),
    LANGUAGE.bug(
        "language_smoothing_forgotten",
        "wrong_operand",
        "['rms_gain']",
        "dlogits = jax.nn.softmax(output @ embeddings.T) - smoothed(targets, h.dtype)",
        "dlogits = jax.nn.softmax(output @ embeddings.T) - jax.nn.one_hot(targets, WORDS, dtype=h.dtype)",
    ),
    LANGUAGE.bug(
        "language_padding_counted",
        "mask",
        "['rms_gain']",
        "weights = jnp.where(targets != 0, class_weights[targets], 0)",
        "weights = class_weights[targets]",
    ),
    LANGUAGE.bug(
        "language_mean_over_all_words",
        "scaled",
        "['rms_gain']",
        "dlogits = dlogits * weights[..., None] / weights.sum()",
        "dlogits = dlogits * weights[..., None] / targets.size",
    ),
    LANGUAGE.bug(
        "language_gain_against_the_shifted",
        "wrong_operand normalization_term",
        "['gain']",
        "dgain = (dinner * normalized).sum((0, 1))",
        "dgain = (dinner * inner).sum((0, 1))",
    ),
)
RIGHT = (LANGUAGE.right("language"),)
