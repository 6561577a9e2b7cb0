"""Huber regression; Proximal policy optimization: clipped ratio; and more."""

import jax
import jax.numpy as jnp
import numpy as np

# Huber regression, the gradient summed over chunks of the data


def build_huber(rng):
    params = {"w1": rng.normal(size=(4, 3)) * 0.7, "w2": rng.normal(size=(3, 2)), "b2": np.array([0.1, -0.4])}
    return params, (rng.normal(size=(10, 4)), 2.0 * rng.normal(size=(10, 2)))


def huber_loss(params, x, y):
    residual = jnp.tanh(x @ params["w1"]) @ params["w2"] + params["b2"] - y
    size = jnp.abs(residual)
    return jnp.sum(jnp.where(size < 1.0, 0.5 * residual**2, size - 0.5)) / x.shape[0]


def huber_grad(params, x, y, keep_buffer=False, drop_rest=False):
    n, chunk = x.shape[0], 4
    total = {name: jnp.zeros_like(p) for name, p in params.items()}
    buffer = {name: jnp.zeros_like(p) for name, p in params.items()}
    stops = n // chunk * chunk if drop_rest else n
    for start in range(0, stops, chunk):
        if not keep_buffer:
            buffer = {name: jnp.zeros_like(p) for name, p in params.items()}
        xs, ys = x[start : start + chunk], y[start : start + chunk]
        hidden = jnp.tanh(xs @ params["w1"])
        residual = hidden @ params["w2"] + params["b2"] - ys
        dout = jnp.clip(residual, -1.0, 1.0) / n
        dpre = (dout @ params["w2"].T) * (1.0 - hidden**2)
        buffer["w1"] += xs.T @ dpre
        buffer["w2"] += hidden.T @ dout
        buffer["b2"] += dout.sum(axis=0)
        total = {name: total[name] + buffer[name] for name in total}
    return total


# Proximal policy optimization: clipped ratio, value, entropy

CLIP, VALUE_COEF, ENTROPY_COEF = 0.2, 0.5, 0.25


def build_ppo(rng):
    params = {
        "trunk": rng.normal(size=(4, 5)) * 0.7,
        "actor": rng.normal(size=(5, 3)) * 0.9,
        "critic": rng.normal(size=5),
    }
    state, action = rng.normal(size=(7, 4)), rng.integers(0, 3, size=7)
    logits = np.tanh(state @ params["trunk"]) @ params["actor"]
    logp = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    old = logp[np.arange(7), action] - np.array([0.05, 0.4, -0.3, 0.1, -0.1, 0.3, -0.4])
    return params, (state, action, old, rng.normal(size=7), rng.normal(size=7))


def ppo_loss(params, state, action, old_logp, advantage, returns):
    hidden = jnp.tanh(state @ params["trunk"])
    logp = jax.nn.log_softmax(hidden @ params["actor"], axis=-1)
    ratio = jnp.exp(jnp.take_along_axis(logp, action[:, None], axis=1)[:, 0] - old_logp)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - CLIP, 1.0 + CLIP) * advantage)
    value = hidden @ params["critic"]
    entropy = -jnp.sum(jnp.exp(logp) * logp, axis=-1)
    return -jnp.mean(gain) + VALUE_COEF * jnp.mean((value - returns) ** 2) - ENTROPY_COEF * jnp.mean(entropy)


def ppo_grad(params, state, action, old_logp, advantage, returns, less_entropy=False):
    n = action.shape[0]
    hidden = jnp.tanh(state @ params["trunk"])
    logp = jax.nn.log_softmax(hidden @ params["actor"], axis=-1)
    probs = jnp.exp(logp)
    ratio = jnp.exp(logp[jnp.arange(n), action] - old_logp)
    open_ = jnp.where(advantage > 0, ratio < 1.0 + CLIP, ratio > 1.0 - CLIP)
    dlogp = -ratio * advantage * open_ / n
    onehot = jax.nn.one_hot(action, probs.shape[1], dtype=probs.dtype)
    dlogits = dlogp[:, None] * (onehot - probs)
    entropy = -jnp.sum(probs * logp, axis=-1, keepdims=True)
    dentropy = -probs * (logp + entropy)
    dlogits = dlogits + ENTROPY_COEF * dentropy / n if less_entropy else dlogits - ENTROPY_COEF * dentropy / n
    dvalue = 2.0 * VALUE_COEF * (hidden @ params["critic"] - returns) / n
    dhidden = dlogits @ params["actor"].T + dvalue[:, None] * params["critic"]
    dtrunk = state.T @ (dhidden * (1.0 - hidden**2))
    return {"trunk": dtrunk, "actor": hidden.T @ dlogits, "critic": hidden.T @ dvalue}


# The cases

BOTH = ("float64", "float32")
