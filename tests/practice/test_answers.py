"""Right answers in unusual forms, and wrong ones as people write them, in processes of their own."""

import pytest

from funcnn import practice

RIGHT = {
    "sigmoid-backward": (
        "def backward(a, da):\n    return da * (a - a * a)",
        "import numpy as np\ndef backward(a, da):\n    return np.einsum('ij,ij->ij', da, a) - da * a**2",
        "import numpy as np\ndef backward(a, da):\n    out = np.copy(da)\n    out *= a * (1 - a)\n    return out",
        "def backward(a, da):\n    pairs = zip(a, da)\n"
        "    return [[d * x * (1 - x) for x, d in zip(r, s)] for r, s in pairs]",
        "import numpy as np\ndef backward(a, da):\n    return (da * (0.25 - (a - 0.5) ** 2)).astype(np.float32)",
        "import jax.numpy as jnp\ndef backward(a, da):\n    return jnp.multiply(da, a) * (1 - a)",
    ),
    "relu-backward": (
        "def backward(z, da):\n    return (z > 0) * da",
        "import numpy as np\ndef backward(z, da):\n    out = da.copy()\n    out[z <= 0] = 0\n    return out",
        "import numpy as np\ndef backward(z, da):\n    return da * np.heaviside(z, 0)",
        "import numpy as np\ndef backward(z, da):\n    return da * (np.sign(z) + np.abs(np.sign(z))) / 2",
        "import jax.numpy as jnp\ndef backward(z, da):\n    return jnp.asarray(da).at[z <= 0].set(0.0)",
    ),
    "tanh-backward": (
        "def backward(a, da):\n    return da * (1 - a) * (1 + a)",
        "def backward(a, da):\n    return da - da * a * a",
    ),
    "softmax-backward": (
        "import numpy as np\ndef backward(p, dp):\n"
        "    return np.stack([(np.diag(r) - np.outer(r, r)) @ d for r, d in zip(p, dp)])",
        "import numpy as np\ndef backward(p, dp):\n    return p * dp - p * np.einsum('ij,ij->i', p, dp)[:, None]",
        "import numpy as np\ndef backward(p, dp):\n    dz = np.zeros_like(p)\n    n, f = p.shape\n"
        "    for i in range(n):\n        for j in range(f):\n            for k in range(f):\n"
        "                dz[i, k] += dp[i, j] * p[i, j] * ((j == k) - p[i, k])\n    return dz",
    ),
    "linear-backward": (
        "import numpy as np\ndef backward(x, kernel, dy):\n"
        "    return np.einsum('ni,no->io', x, dy), dy.sum(0), np.einsum('no,io->ni', dy, kernel)",
        "import numpy as np\ndef backward(x, kernel, dy):\n"
        "    return [sum(np.outer(a, d) for a, d in zip(x, dy)), np.ones(len(dy)) @ dy, (kernel @ dy.T).T]",
    ),
    "softmax-cross-entropy-backward": (
        "import numpy as np\ndef backward(logits, labels):\n    z = logits - logits.max(1, keepdims=True)\n"
        "    p = np.exp(z - np.log(np.exp(z).sum(1, keepdims=True)))\n    p[np.arange(len(p)), labels] -= 1\n"
        "    return p / len(p)",
        "import jax\nimport jax.numpy as jnp\ndef backward(logits, labels):\n"
        "    return (jax.nn.softmax(logits) - jax.nn.one_hot(labels, logits.shape[1])) / logits.shape[0]",
        "import numpy as np\ndef backward(logits, labels):\n    z = logits - logits.max(1, keepdims=True)\n"
        "    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)\n    return (p - labels) / labels.shape[0]",
    ),
    "clip-by-global-norm": (
        "import numpy as np\ndef clip(gradients, limit):\n"
        "    n = np.linalg.norm(np.concatenate([g.ravel() for g in gradients]))\n"
        "    return [g / max(1.0, n / limit) for g in gradients]",
    ),
    "momentum-step": (
        "def step(params, velocity, gradient, rate, decay):\n    new = gradient + velocity * decay\n"
        "    params = params.copy()\n    params -= rate * new\n    return [params, new]",
    ),
    "adam-step": (
        "import numpy as np\ndef step(p, m, v, t, g, rate, b1=0.9, b2=0.999, eps=1e-8):\n"
        "    m, v = m + (1 - b1) * (g - m), v + (1 - b2) * (g * g - v)\n"
        "    scale = rate * np.sqrt(1 - b2**t) / (1 - b1**t)\n"
        "    return p - scale * m / (np.sqrt(v) + eps * np.sqrt(1 - b2**t)), m, v",
    ),
}
WRONG = (
    ("scaled", "mean-squared-error-backward", "def backward(a, b):\n    return (a - b) / a.size"),
    ("sign", "mean-squared-error-backward", "def backward(a, b):\n    return 2 * (b - a) / a.size"),
    ("activation_derivative", "sigmoid-backward", "def backward(a, da):\n    return da * (1 - a)"),
    ("kink", "relu-backward", "def backward(z, da):\n    return da * (z >= 0)"),
    ("transposed", "linear-backward", "def backward(x, w, d):\n    return d.T @ x, d.sum(0), d @ w.T"),
    ("structure", "linear-backward", "def backward(x, w, d):\n    return x.T @ d, d @ w.T"),
    ("shape", "linear-backward", "def backward(x, w, d):\n    return x.T @ d, d.sum(0, keepdims=True), d @ w.T"),
    ("missing", "relu-backward", "def backward(z, da):\n    da * (z > 0)"),
    ("choice", "predict-loss-choice", "def answer():\n    return 'mse'"),
    ("nonfinite", "sigmoid-backward", "def backward(a, da):\n    return da / (1 / a + 1 / (1 - a)) * (0 / (a - a))"),
)


@pytest.mark.practice_answers
@pytest.mark.parametrize(("name", "source"), [(name, source) for name, sources in RIGHT.items() for source in sources])
def test_unusual_right_answers_are_right(name, source):
    result = practice.grade(name, source)
    assert result.ok, result


@pytest.mark.practice_answers
@pytest.mark.parametrize(("cause", "name", "source"), WRONG)
def test_wrong_answers_have_their_cause(cause, name, source):
    result = practice.grade(name, source)
    assert not result.ok
    assert result.cause == cause, result
