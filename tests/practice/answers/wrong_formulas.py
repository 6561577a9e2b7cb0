"""Wrong answers, as people change a right formula: a factor, an axis, an operand, an order."""

_NETWORK = """w1, b1, w2, b2 = params
z1 = x @ w1 + b1
a1 = np.maximum(z1, 0)
p = 1 / (1 + np.exp(-(a1 @ w2 + b2)))
d2 = (p - y) / len(x)
d1 = (d2 @ w2.T) * (z1 > 0)
return x.T @ d1, d1.sum(0), a1.T @ d2, d2.sum(0)"""
_NORM = """s = np.sqrt(x.var(axis=0) + epsilon)
h = (x - x.mean(axis=0)) / s
d = dy * scale
dx = (d - d.mean(axis=0) - h * (d * h).mean(axis=0)) / s
return dx, (dy * h).sum(axis=0), dy.sum(axis=0)"""
_ADAM = """m = 0.9 * m + 0.1 * gradient
v = 0.999 * v + 0.001 * gradient ** 2
mh = m / (1 - 0.9 ** t)
vh = v / (1 - 0.999 ** t)
return params - rate * mh / (np.sqrt(vh) + 1e-8), m, v"""
_CLIP = """n = np.sqrt(sum((g ** 2).sum() for g in gradients))
return tuple(g * limit / n if n > limit else g for g in gradients)"""


def _changed(text, *changes):
    """Return a text with each (cause, old, new) in it."""
    for _, old, _ in changes:
        assert old in text, old
    return [(cause, text.replace(old, new)) for cause, old, new in changes]


WRONG = {
    "linear-backward": [
        ("wrong_axis|subset_of_batch", "x.T @ dy, dy.mean(axis=0), dy @ kernel.T"),
        ("scaled|scaled_path", "x.T @ dy / len(x), dy.sum(axis=0), dy @ kernel.T"),
        ("scaled|scaled_path", "x.T @ dy / len(x), dy.sum(axis=0) / len(x), dy @ kernel.T"),
        ("transposed", "dy.T @ x, dy.sum(axis=0), dy @ kernel.T"),
        ("structure", "x.T @ dy, dy @ kernel.T"),
        ("shape", "x.T @ dy, dy, dy @ kernel.T"),
        ("shape", "x.T @ dy, dy.sum(axis=1), dy @ kernel.T"),
        ("shape", "x.T @ dy, dy.sum(axis=0, keepdims=True), dy @ kernel.T"),
        ("sign", "-x.T @ dy, -dy.sum(axis=0), -dy @ kernel.T"),
        ("swapped", "dy @ kernel.T, x.T @ dy, dy.sum(axis=0)"),
        ("raised", "x @ dy, dy.sum(axis=0), dy @ kernel.T"),
        ("subset_of_batch", "x.T @ dy, dy[-1], dy @ kernel.T"),
        ("subset_of_batch|wrong_operand|unknown", "np.outer(x[-1], dy[-1]), dy.sum(axis=0), dy @ kernel.T"),
        ("wrong_operand|activation_derivative|unknown", "x.T @ dy, dy.sum(axis=0), (dy @ kernel.T) * x"),
        ("zero", "x.T @ dy, np.zeros(dy.shape[1]), dy @ kernel.T"),
        ("offset_by_parameter|unknown|wrong_operand", "x.T @ dy + 0.1 * kernel, dy.sum(axis=0), dy @ kernel.T"),
    ],
    "two-layer-network": _changed(
        _NETWORK,
        ("activation_derivative", " * (z1 > 0)", ""),
        ("scaled", " / len(x)", ""),
        ("sign", "(p - y)", "(y - p)"),
        ("scaled", "(p - y)", "2 * (p - y)"),
        ("activation_derivative", "(p - y) / len(x)", "(p - y) * p * (1 - p) / len(x)"),
        ("activation_derivative", "(z1 > 0)", "a1"),
        ("wrong_operand", "a1.T @ d2", "z1.T @ d2"),
        ("wrong_operand|wrong_axis|scaled", "d1.sum(0)", "d1.mean(0)"),
        ("wrong_operand|wrong_axis|scaled", "d2.sum(0)", "d2.mean(0)"),
        ("zero", "d1.sum(0)", "np.zeros_like(b1)"),
        (
            "shape|structure|swapped|transposed",
            "x.T @ d1, d1.sum(0), a1.T @ d2, d2.sum(0)",
            "a1.T @ d2, d2.sum(0), x.T @ d1, d1.sum(0)",
        ),
        ("activation_derivative|mask", "(z1 > 0)", "(z1 < 0)"),
        ("activation_derivative", "(z1 > 0)", "(1 - np.tanh(z1) ** 2)"),
        ("scaled", "/ len(x)", "/ len(x) ** 2"),
        ("updated_weights", "(d2 @ w2.T)", "(d2 @ (w2 - 0.01 * a1.T @ d2).T)"),
        ("subset_of_batch|unknown|wrong_operand", "d1.sum(0)", "d1[0]"),
        ("loss_derivative|unknown|activation_derivative|wrong_operand", "(p - y)", "(p - 0.5)"),
        ("structure", "return x.T @ d1, d1.sum(0), a1.T @ d2, d2.sum(0)", "return x.T @ d1, a1.T @ d2"),
    ),
    "linear-jacobian": [
        ("transposed|shape", "kernel"),
        ("shape", "kernel.T @ x"),
        ("unknown|wrong_operand", "kernel.T * x"),
        ("sign", "-kernel.T"),
        ("unknown|element|wrong_operand|zero", "np.eye(kernel.shape[1], kernel.shape[0])"),
    ],
    "skip-backward": [
        ("lost_use|lost_path", "dy * (1 - np.tanh(x) ** 2)"),
        ("lost_use|lost_path", "dy"),
        ("activation_derivative", "dy + dy * np.tanh(x)"),
        ("lost_use|scaled_path|unknown|lost_path", "1 + dy * (1 - np.tanh(x) ** 2)"),
        ("activation_derivative", "dy + dy * (1 - x ** 2)"),
        ("sign|scaled_path|unknown", "dy - dy * (1 - np.tanh(x) ** 2)"),
        ("lost_use|unknown|scaled_path|activation_derivative|wrong_operand", "dy * dy * (1 - np.tanh(x) ** 2)"),
        ("scaled", "(dy + dy * (1 - np.tanh(x) ** 2)) / 2"),
        ("unknown|lost_use|activation_derivative|scaled_path", "dy + 1 - np.tanh(x) ** 2"),
    ],
    "sgd-step": [
        ("sign", "params + rate * gradient"),
        ("scaled|unknown|lost_path", "params - gradient"),
        ("lost_path", "-rate * gradient"),
        ("wrong_operand|unknown|scaled", "params * (1 - rate)"),
        ("wrong_operand|unknown|sign", "gradient - rate * params"),
        ("wrong_operand|unknown|normalized", "params - rate * gradient / np.linalg.norm(gradient)"),
        ("changed_argument", "params -= rate * gradient\nreturn params"),
        ("scaled|unknown|scaled_path", "params - rate * gradient / len(params)"),
        ("wrong_operand|unknown", "params - rate * np.sign(gradient)"),
    ],
    "momentum-step": [
        ("scaled_path", "v = decay * velocity + (1 - decay) * gradient\nreturn params - rate * v, v"),
        ("updated_weights", "v = decay * velocity + gradient\nreturn params - rate * velocity, v"),
        ("sign", "v = decay * velocity + gradient\nreturn params + rate * v, v"),
        ("sign", "v = decay * velocity - gradient\nreturn params - rate * v, v"),
        ("scaled_path", "v = decay * velocity - rate * gradient\nreturn params + v, v"),
        ("wrong_operand", "v = decay * velocity + gradient\nreturn params - rate * gradient, v"),
        ("lost_path", "v = velocity + gradient\nreturn params - rate * v, v"),
        ("structure", "v = decay * velocity + gradient\nreturn params - rate * v"),
        ("swapped", "v = decay * velocity + gradient\nreturn v, params - rate * v"),
        (
            "wrong_operand|updated_weights|unknown|lost_path",
            "v = decay * velocity + gradient\nreturn params - rate * v, velocity",
        ),
        ("scaled_path", "v = decay * velocity + rate * gradient\nreturn params - v, v"),
        ("scaled_path|wrong_operand|unknown", "v = rate * velocity + gradient\nreturn params - decay * v, v"),
        ("changed_argument", "velocity *= decay\nvelocity += gradient\nreturn params - rate * velocity, velocity"),
    ],
    "nesterov-step": [
        ("lost_path", "v = decay * velocity + gradient\nreturn params - rate * v, v"),
        ("scaled_path", "v = decay * velocity + gradient\nreturn params - rate * (v + gradient), v"),
        ("sign", "v = decay * velocity + gradient\nreturn params + rate * (decay * v + gradient), v"),
        (
            "updated_weights|unknown|lost_path",
            "v = decay * velocity + gradient\nreturn params - rate * (decay * velocity + gradient), v",
        ),
        (
            "unknown|lost_path|wrong_operand|scaled_path",
            "v = decay * velocity + gradient\nreturn params - rate * decay * v, v",
        ),
        (
            "unknown|swapped|wrong_operand",
            "v = decay * velocity + gradient\nu = decay * v + gradient\nreturn params - rate * u, u",
        ),
    ],
    "rmsprop-step": [
        ("wrong_operand", "s = 0.9 * s + 0.1 * gradient ** 2\nreturn params - rate * gradient / (s + 1e-8), s"),
        (
            "wrong_operand",
            "s = 0.9 * s + 0.1 * gradient\nreturn params - rate * gradient / (np.sqrt(np.abs(s)) + 1e-8), s",
        ),
        (
            "updated_weights|unknown",
            "new = 0.9 * s + 0.1 * gradient ** 2\nreturn params - rate * gradient / (np.sqrt(s) + 1e-8), new",
        ),
        ("sign", "s = 0.9 * s + 0.1 * gradient ** 2\nreturn params + rate * gradient / (np.sqrt(s) + 1e-8), s"),
        (
            "swapped|unknown|scaled_path",
            "s = 0.1 * s + 0.9 * gradient ** 2\nreturn params - rate * gradient / (np.sqrt(s) + 1e-8), s",
        ),
        (
            "scaled_path|accumulated|unknown|wrong_operand",
            "s = s + gradient ** 2\nreturn params - rate * gradient / (np.sqrt(s) + 1e-8), s",
        ),
        ("wrong_operand", "s = 0.9 * s + 0.1 * gradient ** 2\nreturn params - rate / (np.sqrt(s) + 1e-8), s"),
    ],
    "adam-step": _changed(
        _ADAM,
        ("lost_path", "m / (1 - 0.9 ** t)\nvh = v / (1 - 0.999 ** t)", "m\nvh = v"),
        ("lost_path", "m / (1 - 0.9 ** t)", "m"),
        ("lost_path", "v / (1 - 0.999 ** t)", "v"),
        ("wrong_operand", "np.sqrt(vh) + 1e-8", "vh + 1e-8"),
        ("wrong_operand", "np.sqrt(vh) + 1e-8", "np.sqrt(vh + 1e-8)"),
        ("accumulated", "1e-8), m, v", "1e-8), mh, vh"),
        ("sign", "params - rate", "params + rate"),
        ("wrong_operand", "gradient ** 2", "gradient"),
        ("wrong_operand", "0.9 ** t", "0.9 ** (t + 1)"),
        ("swapped", "0.9 * m + 0.1 * gradient", "0.1 * m + 0.9 * gradient"),
        ("swapped", "0.999 * v + 0.001", "0.9 * v + 0.1"),
        ("scaled_path|unknown|wrong_operand|lost_path", "0.001 * gradient ** 2", "0.001 * np.sum(gradient ** 2)"),
        ("wrong_operand|unknown|lost_path", "1 - 0.9 ** t", "1 - 0.9 * t"),
        ("lost_path|wrong_operand|unknown|scaled", "rate * mh", "mh"),
        ("structure", "1e-8), m, v", "1e-8)"),
    ),
    "he-scale": [
        ("wrong_operand", "np.sqrt(1 / inputs), np.sqrt(2 / (inputs + outputs))"),
        ("wrong_operand|unknown", "2 / inputs, 2 / (inputs + outputs)"),
        ("swapped", "np.sqrt(2 / (inputs + outputs)), np.sqrt(2 / inputs)"),
        ("wrong_operand", "np.sqrt(2 / outputs), np.sqrt(2 / (inputs + outputs))"),
        ("wrong_operand|scaled|unknown", "np.sqrt(2 / inputs), np.sqrt(1 / (inputs + outputs))"),
        ("scaled|unknown|wrong_operand", "np.sqrt(2 / inputs), np.sqrt(6 / (inputs + outputs))"),
        ("structure", "np.sqrt(2 / inputs)"),
    ],
    "batch-norm-forward": [
        (
            "wrong_axis",
            "scale * (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + epsilon) + bias",
        ),
        ("normalization_term", "scale * (x - x.mean(axis=0)) / (x.std(axis=0) + epsilon) + bias"),
        ("normalization_term", "scale * (x - x.mean(axis=0)) / (x.var(axis=0) + epsilon) + bias"),
        ("wrong_axis|unknown|normalization_term", "scale * (x - x.mean()) / np.sqrt(x.var() + epsilon) + bias"),
        ("lost_path|unknown|normalization_term", "(x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon)"),
        (
            "normalization_term|unknown|nonfinite",
            "scale * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0, ddof=min(1, len(x) - 1)) + epsilon) + bias",
        ),
        ("normalization_term|unknown|lost_path", "scale * x / np.sqrt(x.var(axis=0) + epsilon) + bias"),
    ],
    "batch-norm-backward": _changed(
        _NORM,
        ("normalization_term", " - h * (d * h).mean(axis=0)", ""),
        ("normalization_term", "d - d.mean(axis=0) - ", "d - "),
        ("normalization_term", "(d - d.mean(axis=0) - h * (d * h).mean(axis=0))", "d"),
        ("lost_path", "d = dy * scale", "d = dy"),
        ("wrong_operand", "(dy * h).sum(axis=0)", "(dy * x).sum(axis=0)"),
        ("wrong_axis", "dy.sum(axis=0)", "dy.mean(axis=0)"),
        ("sign", "- h * (d * h)", "+ h * (d * h)"),
        ("scaled_path", "(d * h).mean(axis=0)", "(d * h).sum(axis=0)"),
        ("lost_path", ")) / s", "))"),
        ("normalization_term", "np.sqrt(x.var(axis=0) + epsilon)", "x.std(axis=0) + epsilon"),
        (
            "swapped|shape",
            "return dx, (dy * h).sum(axis=0), dy.sum(axis=0)",
            "return dx, dy.sum(axis=0), (dy * h).sum(axis=0)",
        ),
        ("normalization_term|scaled_path|unknown|wrong_operand", "(d * h).mean(axis=0)", "(d * x).mean(axis=0)"),
        ("wrong_operand|lost_path|unknown|scaled_path", "(dy * h).sum(axis=0)", "(dy * scale * h).sum(axis=0)"),
        ("shape", "dy.sum(axis=0)", "dy.sum(axis=1)"),
        ("scaled|scaled_path", "(d - d.mean(axis=0)", "2 * (d - d.mean(axis=0)"),
    ),
    "clip-by-global-norm": [
        ("clipped", "tuple(np.clip(g, -limit, limit) for g in gradients)"),
        ("clipped", "tuple(g * min(1, limit / (np.linalg.norm(g) + 1e-300)) for g in gradients)"),
        *_changed(
            _CLIP,
            ("nonfinite", "g * limit / n if n > limit else g", "g * limit / n"),
            (
                "wrong_operand",
                "np.sqrt(sum((g ** 2).sum() for g in gradients))",
                "sum((g ** 2).sum() for g in gradients)",
            ),
            (
                "wrong_operand",
                "np.sqrt(sum((g ** 2).sum() for g in gradients))",
                "sum(np.linalg.norm(g) for g in gradients)",
            ),
            (
                "wrong_operand",
                "np.sqrt(sum((g ** 2).sum() for g in gradients))",
                "max(np.abs(g).max() for g in gradients)",
            ),
            ("normalized", "g * limit / n if", "g / n if"),
            ("lost_path|unknown|corner_case|wrong_operand", "n > limit", "n < limit and n > 0"),
            (
                "structure|unknown|corner_case|zero|lost_path|element",
                "g * limit / n if n > limit else g",
                "g * limit / n if n > limit else 0 * g",
            ),
            ("wrong_operand|unknown|corner_case|normalized|clipped", "g * limit / n if", "g * limit / n ** 2 if"),
            ("structure", "return tuple(", "return next("),
        ),
        ("lost_path", "gradients"),
    ],
    "predict-neuron": [("unknown", "2.3"), ("unknown", "0.5"), ("structure", "'0.9089'")],
    "predict-xor": [("unknown", "4"), ("unknown", "2")],
    "predict-sigmoid-slope": [("unknown", "1.0"), ("unknown", "0.5")],
    "predict-softmax-shift": [("unknown", "0.33"), ("unknown", "1.0")],
    "predict-activation-choice": [("choice", "'tanh'"), ("choice", "'sigmoid'"), ("choice", "'leaky_relu'")],
    "predict-forward": [("unknown", "0.6498"), ("unknown", "0.5")],
    "predict-two-linear": [("unknown", "4"), ("unknown", "5")],
    "predict-uniform-loss": [("unknown", "0.1"), ("unknown", "np.log2(10)"), ("sign", "-np.log(10)")],
    "predict-loss-choice": [("choice", "'mse'"), ("choice", "'both'")],
    "predict-chain": [("unknown", "-0.1057"), ("unknown|sign", "0.2115")],
    "predict-adam-first-step": [("unknown", "-24.0"), ("unknown", "1.1")],
    "predict-momentum-limit": [("unknown", "0.1"), ("unknown", "10.0")],
    "predict-divergence": [("unknown", "1 / 6"), ("unknown", "2 / 3")],
    "predict-vanishing": [("unknown", "0.25"), ("unknown", "0.5 ** 10")],
    "predict-which-vanishes": [("choice", "'tanh'"), ("choice", "'relu'")],
}
