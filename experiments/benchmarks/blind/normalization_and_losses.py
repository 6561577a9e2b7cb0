"""Losses and layers in JAX: pairs on a sphere, a variational autoencoder, targets held constant, spectra, mixtures."""

import jax
import jax.numpy as jnp

from experiments.benchmarks.blind.model import Model, jax_normal

SAMPLES, INPUTS, WIDTH = 6, 5, 4


# Pairs of views on the sphere


def unit_rows(x):
    """Return the rows over their norms."""
    return x / jnp.linalg.norm(x, axis=1, keepdims=True)


def pairs_loss(params, images, texts):
    """Return the symmetric cross-entropy of the pairs among all cosines, with a learned temperature."""
    logits = unit_rows(images @ params["image"]) @ unit_rows(texts @ params["text"]).T * jnp.exp(params["scale"])
    rows, columns = jnp.diag(jax.nn.log_softmax(logits, axis=1)), jnp.diag(jax.nn.log_softmax(logits, axis=0))
    return -(rows.mean() + columns.mean()) / 2


def pairs_gradient(params, images, texts):
    """Return the gradient of ``pairs_loss``."""
    a, b = images @ params["image"], texts @ params["text"]
    norm_a, norm_b = jnp.linalg.norm(a, axis=1, keepdims=True), jnp.linalg.norm(b, axis=1, keepdims=True)
    u, v = a / norm_a, b / norm_b
    temperature = jnp.exp(params["scale"])
    cosines = u @ v.T
    rows, columns = jax.nn.softmax(cosines * temperature, axis=1), jax.nn.softmax(cosines * temperature, axis=0)
    dlogits = (rows + columns - 2 * jnp.eye(len(a), dtype=a.dtype)) / (2 * len(a))
    dscale = (dlogits * cosines).sum() * temperature
    dcosines = dlogits * temperature
    du = dcosines @ v
    dv = dcosines.T @ u
    da = (du - u * (du * u).sum(1, keepdims=True)) / norm_a
    db = (dv - v * (dv * v).sum(1, keepdims=True)) / norm_b
    return {"image": images.T @ da, "text": texts.T @ db, "scale": dscale}


def make_pairs(dtype):
    """Return two projections, a temperature's logarithm and pairs of samples."""
    image, text, images, texts = jax_normal(dtype, 71, *[(INPUTS, WIDTH)] * 2, *[(SAMPLES, INPUTS)] * 2)
    return {"image": image, "text": text, "scale": jnp.asarray(1.0, dtype)}, (images, texts)


PAIRS = Model("contrastive loss", pairs_loss, pairs_gradient, make_pairs)


# A variational autoencoder with given noise


def variational_loss(params, x, noise):
    """Return the mean over samples of the reconstruction error and the divergence from a standard normal."""
    mean, log_variance = x @ params["mean"], x @ params["log_variance"]
    code = mean + jnp.exp(log_variance / 2) * noise
    reconstruction = jnp.tanh(code @ params["decoder"] + params["bias"])
    divergence = -0.5 * (1 + log_variance - mean**2 - jnp.exp(log_variance)).sum()
    return (0.5 * ((reconstruction - x) ** 2).sum() + divergence) / len(x)


def variational_gradient(params, x, noise):
    """Return the gradient of ``variational_loss``."""
    mean, log_variance = x @ params["mean"], x @ params["log_variance"]
    std = jnp.exp(log_variance / 2)
    code = mean + std * noise
    reconstruction = jnp.tanh(code @ params["decoder"] + params["bias"])
    dz = (reconstruction - x) / len(x) * (1 - reconstruction**2)
    dcode = dz @ params["decoder"].T
    dmean = dcode + mean / len(x)
    dlog_variance = dcode * noise * std / 2
    dlog_variance += 0.5 * (std**2 - 1) / len(x)
    return {
        "mean": x.T @ dmean,
        "log_variance": x.T @ dlog_variance,
        "decoder": code.T @ dz,
        "bias": dz.sum(0),
    }


def make_variational(dtype):
    """Return an encoder, a decoder, samples and noise."""
    shapes = [(INPUTS, WIDTH), (INPUTS, WIDTH), (WIDTH, INPUTS), (INPUTS,), (SAMPLES, INPUTS), (SAMPLES, WIDTH)]
    mean, log_variance, decoder, bias, x, noise = jax_normal(dtype, 72, *shapes)
    params = {"mean": mean / 2, "log_variance": log_variance / 3, "decoder": decoder / 2, "bias": bias / 2}
    return params, (x, noise)


VARIATIONAL = Model("variational autoencoder", variational_loss, variational_gradient, make_variational)


# Values of states, whose target is a constant


DISCOUNT = 0.9


def value(params, states):
    """Return a value for each state."""
    return jnp.tanh(states @ params["w"] + params["b"]) @ params["v"]


def values_loss(params, states, rewards, next_states):
    """Return the mean squared error of the values from a target that is held constant."""
    target = jax.lax.stop_gradient(rewards + DISCOUNT * value(params, next_states))
    return 0.5 * jnp.mean((value(params, states) - target) ** 2)


def values_gradient(params, states, rewards, next_states):
    """Return the gradient of ``values_loss``."""
    error = value(params, states) - rewards - DISCOUNT * value(params, next_states)
    derror = error / len(states)
    batch, dvalue = states, derror
    hidden = jnp.tanh(batch @ params["w"] + params["b"])
    dz = dvalue[:, None] * params["v"] * (1 - hidden**2)
    return {"w": batch.T @ dz, "b": dz.sum(0), "v": hidden.T @ dvalue}


def make_values(dtype):
    """Return a network of values, states, rewards and the next states."""
    shapes = [(INPUTS, WIDTH), (WIDTH,), (WIDTH,), (SAMPLES, INPUTS), (SAMPLES,), (SAMPLES, INPUTS)]
    w, b, v, states, rewards, next_states = jax_normal(dtype, 73, *shapes)
    return {"w": w / 2, "b": b / 2, "v": v}, (states, rewards, next_states)


VALUES = Model("value function", values_loss, values_gradient, make_values)


# A layer with complex weights in the frequencies of a signal


LENGTH = 8


def spectral_loss(params, x, y):
    """Return the mean squared error of a signal filtered by complex weights, beside a pointwise path."""
    spectrum = jnp.fft.rfft(x, axis=1) * params["filter"]
    hidden = jnp.tanh(jnp.fft.irfft(spectrum, LENGTH, axis=1) + x * params["pointwise"] + params["bias"])
    return jnp.mean((hidden - y) ** 2)


def spectral_gradient(params, x, y):
    """Return the gradient of ``spectral_loss``, by JAX's convention for complex parameters."""
    frequencies = jnp.fft.rfft(x, axis=1)
    filtered = jnp.fft.irfft(frequencies * params["filter"], LENGTH, axis=1)
    hidden = jnp.tanh(filtered + x * params["pointwise"] + params["bias"])
    dz = 2 * (hidden - y) / y.size * (1 - hidden**2)
    counts = jnp.asarray([1] + [2] * (LENGTH // 2 - 1) + [1], x.dtype)
    dspectrum = jnp.fft.rfft(dz, axis=1) * counts / LENGTH
    real = (dspectrum * frequencies.conj()).real.sum(0)
    imaginary = (dspectrum * frequencies.conj()).imag.sum(0)
    dfilter = real - 1j * imaginary
    return {"filter": dfilter, "pointwise": (dz * x).sum(0), "bias": dz.sum()}


def make_spectral(dtype):
    """Return a filter of five frequencies, weights of the points, a bias, signals and targets."""
    real, imaginary, pointwise, x, y = jax_normal(
        dtype, 74, *[(LENGTH // 2 + 1,)] * 2, (LENGTH,), *[(SAMPLES, LENGTH)] * 2
    )
    return {"filter": real + 1j * imaginary, "pointwise": pointwise, "bias": jnp.asarray(0.2, dtype)}, (x, y)


SPECTRAL = Model("spectral layer", spectral_loss, spectral_gradient, make_spectral)


# A mixture of experts with large logits


def experts_loss(params, x, y):
    """Return the mean squared error of linear experts, mixed by a softmax of large logits, with an elastic penalty."""
    gates = jax.nn.softmax(x @ params["gate"] * 1000)
    outputs = jax.nn.elu(jnp.einsum("nd,edk->nek", x, params["experts"]) + params["bias"])
    mixed = (gates[..., None] * outputs).sum(1)
    penalty = 0.02 * jnp.abs(params["experts"]).sum() + 0.01 * (params["experts"] ** 2).sum()
    return 0.5 * jnp.mean((mixed - y) ** 2) + penalty


def experts_gradient(params, x, y):
    """Return the gradient of ``experts_loss``."""
    logits = x @ params["gate"] * 1000
    gates = jnp.exp(logits - logits.max(1, keepdims=True))
    gates = gates / gates.sum(1, keepdims=True)
    z = jnp.einsum("nd,edk->nek", x, params["experts"]) + params["bias"]
    outputs = jnp.where(z > 0, z, jnp.expm1(z))
    derror = ((gates[..., None] * outputs).sum(1) - y) / y.size
    dgates = (derror[:, None] * outputs).sum(-1)
    dlogits = gates * (dgates - (gates * dgates).sum(1, keepdims=True)) * 1000
    doutputs = gates[..., None] * derror[:, None]
    dz = doutputs * jnp.where(z > 0, 1, jnp.exp(z))
    dexperts = jnp.einsum("nd,nek->edk", x, dz)
    dexperts += 0.02 * jnp.sign(params["experts"]) + 0.02 * params["experts"]
    return {"gate": x.T @ dlogits, "experts": dexperts, "bias": dz.sum(0)}


def make_experts(dtype):
    """Return three experts, their gate, samples and targets."""
    gate, experts, bias, x, y = jax_normal(
        dtype, 75, (INPUTS, 3), (3, INPUTS, 2), (3, 2), (SAMPLES, INPUTS), (SAMPLES, 2)
    )
    return {"gate": gate.at[:, 1:].set(gate[:, :1] + gate[:, 1:] / 1250), "experts": experts, "bias": bias}, (x, y)


EXPERTS = Model("mixture of experts", experts_loss, experts_gradient, make_experts)


BUGS = (
    PAIRS.bug(
        "pairs_norm_a_constant",
        "normalization_term",
        "['image']",
        "da = (du - u * (du * u).sum(1, keepdims=True)) / norm_a",
        "da = du / norm_a",
    ),
    PAIRS.bug(
        "pairs_one_direction",
        "lost_path wrong_operand",
        "['scale']",
        "dlogits = (rows + columns - 2 * jnp.eye(len(a), dtype=a.dtype)) / (2 * len(a))",
        "dlogits = (rows - jnp.eye(len(a), dtype=a.dtype)) / len(a)",
    ),
    PAIRS.bug(
        "pairs_temperature_of_the_cosines_forgotten",
        "scaled scaled_path",
        "['text']",
        "dv = dcosines.T @ u",
        "dv = dlogits.T @ u",
    ),
    PAIRS.bug(
        "pairs_temperature_the_wrong_way",
        "sign",
        "['scale']",
        "dscale = (dlogits * cosines).sum() * temperature",
        "dscale = -(dlogits * cosines).sum() * temperature",
    ),
    PAIRS.bug(
        "pairs_texts_untransposed",
        "transposed",
        "['text']",
        "dv = dcosines.T @ u",
        "dv = dcosines @ u",
    ),
    VARIATIONAL.bug(
        "variational_divergence_left_out",
        "lost_path",
        "['log_variance']",
        "dlog_variance += 0.5 * (std**2 - 1) / len(x)",
        "dlog_variance += 0",
    ),
    VARIATIONAL.bug(
        "variational_half_forgotten",
        "scaled_path",
        "['log_variance']",
        "dlog_variance = dcode * noise * std / 2",
        "dlog_variance = dcode * noise * std",
    ),
    VARIATIONAL.bug(
        "variational_gradient_normalized",
        "normalized",
        "['decoder']",
        '"decoder": code.T @ dz,',
        '"decoder": code.T @ dz / jnp.linalg.norm(code.T @ dz),',
    ),
    VARIATIONAL.bug(
        "variational_one_bias_left_out",
        "element zero unit",
        "['bias']",
        '"bias": dz.sum(0),',
        '"bias": dz.sum(0).at[-1].set(0),',
    ),
    VALUES.bug(
        "values_through_the_target",
        "stop_gradient",
        "['v']",
        "batch, dvalue = states, derror",
        "batch, dvalue = jnp.concatenate([states, next_states]), jnp.concatenate([derror, -DISCOUNT * derror])",
    ),
    SPECTRAL.bug(
        "spectral_other_convention",
        "conjugate",
        "['filter']",
        "dfilter = real - 1j * imaginary",
        "dfilter = real + 1j * imaginary",
    ),
    SPECTRAL.bug(
        "spectral_frequencies_counted_once",
        "scaled_path unit element",
        "['filter']",
        "dspectrum = jnp.fft.rfft(dz, axis=1) * counts / LENGTH",
        "dspectrum = jnp.fft.rfft(dz, axis=1) / LENGTH",
    ),
    EXPERTS.bug(
        "experts_softmax_overflows",
        "nonfinite unstable",
        None,
        "gates = jnp.exp(logits - logits.max(1, keepdims=True))",
        "gates = jnp.exp(logits)",
    ),
    EXPERTS.bug(
        "experts_gate_as_a_sigmoid",
        "activation_derivative",
        "['gate']",
        "dlogits = gates * (dgates - (gates * dgates).sum(1, keepdims=True)) * 1000",
        "dlogits = gates * (1 - gates) * dgates * 1000",
    ),
    EXPERTS.bug(
        "experts_lasso_forgotten",
        "lost_path",
        "['experts']",
        'dexperts += 0.02 * jnp.sign(params["experts"]) + 0.02 * params["experts"]',
        'dexperts += 0.02 * params["experts"]',
    ),
    EXPERTS.bug(
        "experts_elu_of_the_output",
        "activation_derivative",
        "['bias']",
        "dz = doutputs * jnp.where(z > 0, 1, jnp.exp(z))",
        "dz = doutputs * jnp.where(z > 0, 1, jnp.exp(outputs))",
    ),
    EXPERTS.bug(
        "experts_unmixed",
        "wrong_operand scaled_path",
        "['bias']",
        "doutputs = gates[..., None] * derror[:, None]",
        "doutputs = jnp.ones_like(gates)[..., None] * derror[:, None]",
    ),
)
RIGHT = (
    PAIRS.right("pairs"),
    VARIATIONAL.right("variational"),
    VALUES.right("values"),
    SPECTRAL.right("spectral"),
    EXPERTS.right("experts"),
)
