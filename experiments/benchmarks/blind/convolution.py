"""Convolutions by hand: in NumPy with strides and padding, causal with dilation, and depthwise with pooling."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.blind.model import Model, jax_normal, numpy_normal

# Two convolutions in NumPy, with a maximum over windows


def convolve(x, w, b, stride, padding):
    """Return the cross-correlation of padded images, one window at a time."""
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    side = (padded.shape[2] - w.shape[2]) // stride + 1
    out = np.zeros((len(x), len(w), side, side), x.dtype)
    for i in range(side):
        for j in range(side):
            window = padded[:, :, i * stride : i * stride + w.shape[2], j * stride : j * stride + w.shape[3]]
            out[:, :, i, j] = np.tensordot(window, w, axes=([1, 2, 3], [1, 2, 3])) + b
    return out


def pool(x):
    """Return the windows of 2 × 2, in the last axis, of each image."""
    n, channels, side, _ = x.shape
    windows = x.reshape(n, channels, side // 2, 2, side // 2, 2)
    return windows.transpose(0, 1, 2, 4, 3, 5).reshape(n, channels, side // 2, side // 2, 4)


def images_loss(params, x, y):
    """Return the mean squared error of two convolutions, ReLU, the maximum over windows and a linear layer."""
    hidden = convolve(x, params["w1"], params["b1"], stride=2, padding=1)
    np.maximum(hidden, 0, out=hidden)
    features = pool(convolve(hidden, params["w2"], params["b2"], stride=1, padding=1)).max(axis=-1)
    error = features.reshape(len(x), -1) @ params["w3"]
    error -= y
    return (error**2).sum() / (2 * len(x))


def images_gradient(params, x, y):
    """Return the gradient of ``images_loss``."""
    w1, w2, w3 = params["w1"], params["w2"], params["w3"]

    def backward(dout, x, w, stride, padding):
        padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        dw, dpadded = np.zeros_like(w), np.zeros_like(padded)
        size = w.shape[2]
        for i in range(dout.shape[2]):
            for j in range(dout.shape[3]):
                rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
                dw += np.tensordot(dout[:, :, i, j], padded[:, :, rows, columns], axes=(0, 0))
                dpadded[:, :, rows, columns] += np.tensordot(dout[:, :, i, j], w, axes=(1, 0))
        dx = dpadded[:, :, padding:-padding, padding:-padding]
        db = dout.sum(axis=(0, 2, 3))
        return dx, dw, db

    z1 = convolve(x, w1, params["b1"], stride=2, padding=1)
    hidden = np.maximum(z1, 0)
    windows = pool(convolve(hidden, w2, params["b2"], stride=1, padding=1))
    features = windows.max(axis=-1)
    derror = (features.reshape(len(x), -1) @ w3 - y) / len(x)
    dw3 = features.reshape(len(x), -1).T @ derror
    dfeatures = (derror @ w3.T).reshape(features.shape)
    dwindows = dfeatures[..., None] * (windows == features[..., None])
    n, channels, side = features.shape[:3]
    dz2 = dwindows.reshape(n, channels, side, side, 2, 2).transpose(0, 1, 2, 4, 3, 5)
    dz2 = dz2.reshape(n, channels, 2 * side, 2 * side)
    dhidden, dw2, db2 = backward(dz2, hidden, w2, 1, 1)
    dz1 = dhidden * (z1 > 0)
    _, dw1, db1 = backward(dz1, x, w1, 2, 1)
    return {"w1": dw1, "b1": db1, "w2": dw2, "b2": db2, "w3": dw3}


def make_images(dtype):
    """Return the kernels, three images of 7 × 7 with two channels, and targets."""
    shapes = [(2, 2, 3, 3), (2,), (2, 2, 3, 3), (2,), (8, 2), (3, 2, 7, 7), (3, 2)]
    w1, b1, w2, b2, w3, x, y = numpy_normal(dtype, 41, *shapes)
    return {"w1": w1 / 3, "b1": b1 / 3, "w2": w2 / 3, "b2": b2 / 3, "w3": w3}, (x, y)


IMAGES = Model("convolution in NumPy", images_loss, images_gradient, make_images)


# Causal convolutions over time with gates, dilation and skip connections


BATCH, TIME, CHANNELS, TAPS = 2, 7, 3, 2


def delay(x, steps):
    """Return the sequence ``steps`` later, zeros first."""
    return jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, :TIME]


def advance(x, steps):
    """Return the sequence ``steps`` earlier, zeros last."""
    return jnp.pad(x, ((0, 0), (0, steps), (0, 0)))[:, steps:]


def wave_loss(params, x, y):
    """Return the mean squared error of gated causal convolutions, dilated by 1 and 2, and of their summed skips."""
    h, skips = x, 0.0
    for layer, dilation in zip(params["layers"], (1, 2), strict=True):
        filtered = sum(delay(h, k * dilation) @ layer["filter"][k] for k in range(TAPS))
        gate = sum(delay(h, k * dilation) @ layer["gate"][k] for k in range(TAPS))
        unit = jnp.tanh(filtered) * jax.nn.sigmoid(gate)
        skips = skips + unit @ layer["skip"]
        h = h + unit
    return jnp.mean((skips + h @ params["out"] - y) ** 2)


def wave_gradient(params, x, y):
    """Return the gradient of ``wave_loss``."""
    h, skips, tape = x, 0.0, []
    for layer, dilation in zip(params["layers"], (1, 2), strict=True):
        a = jnp.tanh(sum(delay(h, k * dilation) @ layer["filter"][k] for k in range(TAPS)))
        s = jax.nn.sigmoid(sum(delay(h, k * dilation) @ layer["gate"][k] for k in range(TAPS)))
        tape.append((layer, dilation, h, a, s))
        skips = skips + a * s @ layer["skip"]
        h = h + a * s
    dskips = 2 * (skips + h @ params["out"] - y) / y.size
    dout = jnp.einsum("bti,bto->io", h, dskips)
    dh = dskips @ params["out"].T
    layers = []
    for layer, dilation, h, a, s in reversed(tape):
        dskip = jnp.einsum("bti,bto->io", a * s, dskips)
        dunit = dh + dskips @ layer["skip"].T
        da = dunit * s * (1 - a**2)
        ds = dunit * a * s * (1 - s)
        delayed = [delay(h, k * dilation) for k in range(TAPS)]
        dfilter = jnp.stack([jnp.einsum("bti,bto->io", d, da) for d in delayed])
        dgate = jnp.stack([jnp.einsum("bti,bto->io", d, ds) for d in delayed])
        for k in range(TAPS):
            dtap = da @ layer["filter"][k].T + ds @ layer["gate"][k].T
            dh = dh + advance(dtap, k * dilation)
        layers.insert(0, {"filter": dfilter, "gate": dgate, "skip": dskip})
    return {"layers": layers, "out": dout}


def make_wave(dtype):
    """Return two layers of three channels, two sequences and targets."""
    kernel = (TAPS, CHANNELS, CHANNELS)
    shapes = [*[kernel] * 4, *[(CHANNELS, CHANNELS)] * 3, *[(BATCH, TIME, CHANNELS)] * 2]
    f1, g1, f2, g2, s1, s2, out, x, y = jax_normal(dtype, 42, *shapes)
    layers = [{"filter": f1 / 2, "gate": g1 / 2, "skip": s1}, {"filter": f2 / 2, "gate": g2 / 2, "skip": s2}]
    return {"layers": layers, "out": out}, (x, y)


WAVE = Model("dilated convolution", wave_loss, wave_gradient, make_wave)


# A depthwise separable convolution with batch normalization and mean pooling


LAYOUT = ("NCHW", "OIHW", "NCHW")


def depthwise(x, w):
    """Return each channel's cross-correlation with a kernel of its own, of the images' size."""
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=LAYOUT, feature_group_count=len(w))


def separable_loss(params, x, y):
    """Return the cross-entropy of a convolution, a depthwise one, its batch normalization, swish and mean pooling."""
    h = jnp.tanh(jnp.einsum("nchw,oc->nohw", x, params["mix"]))
    z = depthwise(h, params["depthwise"])
    centred = z - z.mean((0, 2, 3), keepdims=True)
    z = centred / jnp.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    z = z * params["gain"][:, None, None] + params["shift"][:, None, None]
    pooled = (z * jax.nn.sigmoid(z)).mean((2, 3))
    return -jnp.take_along_axis(jax.nn.log_softmax(pooled @ params["head"]), y[:, None], axis=1).mean()


def separable_gradient(params, x, y):
    """Return the gradient of ``separable_loss``."""
    mix, kernel, head = params["mix"], params["depthwise"], params["head"]
    gain = params["gain"][:, None, None]
    h = jnp.tanh(jnp.einsum("nchw,oc->nohw", x, mix))
    z = depthwise(h, kernel)
    centred = z - z.mean((0, 2, 3), keepdims=True)
    std = jnp.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + 1e-5)
    normalized = centred / std
    scaled = normalized * gain + params["shift"][:, None, None]
    gate = jax.nn.sigmoid(scaled)
    pooled = (scaled * gate).mean((2, 3))
    dlogits = (jax.nn.softmax(pooled @ head) - jax.nn.one_hot(y, head.shape[1], dtype=x.dtype)) / len(y)
    dhead = pooled.T @ dlogits
    area = x.shape[2] * x.shape[3]
    dswish = (dlogits @ head.T)[:, :, None, None] / area
    dscaled = dswish * (gate + scaled * gate * (1 - gate))
    dgain = (dscaled * normalized).sum((0, 2, 3))
    dshift = dscaled.sum((0, 2, 3))
    dnormalized = dscaled * gain
    mean = dnormalized.mean((0, 2, 3), keepdims=True)
    correlation = (dnormalized * normalized).mean((0, 2, 3), keepdims=True)
    dz = (dnormalized - mean - normalized * correlation) / std
    padded = jnp.pad(h, ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = [(padded[:, :, i : i + h.shape[2], j : j + h.shape[3]] * dz).sum((0, 2, 3)) for i, j in np.ndindex(3, 3)]
    dkernel = jnp.stack(taps, axis=-1).reshape(kernel.shape)
    dh = depthwise(dz, kernel[:, :, ::-1, ::-1])
    dmix = jnp.einsum("nohw,nchw->oc", dh * (1 - h**2), x)
    return {"mix": dmix, "depthwise": dkernel, "gain": dgain, "shift": dshift, "head": dhead}


def make_separable(dtype):
    """Return the parameters, four images of 4 × 4 with two channels, and labels."""
    shapes = [(3, 2), (3, 1, 3, 3), (3,), (3,), (3, 3), (4, 2, 4, 4)]
    mix, kernel, gain, shift, head, x = jax_normal(dtype, 43, *shapes)
    params = {"mix": mix, "depthwise": kernel, "gain": 1 + gain / 4, "shift": shift, "head": head}
    return params, (x, jnp.array([0, 2, 1, 2]))


SEPARABLE = Model("depthwise convolution", separable_loss, separable_gradient, make_separable)


BUGS = (
    IMAGES.bug(
        "conv_kernel_flipped_to_the_input",
        "kernel_flipped",
        "['b1']",
        "np.tensordot(dout[:, :, i, j], w, axes=(1, 0))",
        "np.tensordot(dout[:, :, i, j], w[:, :, ::-1, ::-1], axes=(1, 0))",
    ),
    IMAGES.bug(
        "conv_weights_flipped",
        "kernel_flipped",
        "['w2']",
        "return dx, dw, db",
        "return dx, dw[:, :, ::-1, ::-1], db",
    ),
    IMAGES.bug(
        "conv_stride_forgotten",
        "shifted wrong_operand",
        "['w1']",
        "rows, columns = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)",
        "rows, columns = slice(i, i + size), slice(j, j + size)",
    ),
    IMAGES.bug(
        "conv_padding_cut_on_one_side",
        "shifted",
        "['b1']",
        "dx = dpadded[:, :, padding:-padding, padding:-padding]",
        "dx = dpadded[:, :, 2 * padding :, 2 * padding :]",
    ),
    IMAGES.bug(
        "conv_bias_averaged_over_the_positions",
        "scaled",
        "['b2']",
        "db = dout.sum(axis=(0, 2, 3))",
        "db = dout.sum(axis=0).mean(axis=(1, 2))",
    ),
    IMAGES.bug(
        "max_pool_as_mean_pool",
        "mask activation_derivative wrong_operand",
        "['w2']",
        "dwindows = dfeatures[..., None] * (windows == features[..., None])",
        "dwindows = dfeatures[..., None] * np.full_like(windows, 0.25)",
    ),
    IMAGES.bug(
        "max_pool_windows_in_another_order",
        "transposed swapped",
        "['w2']",
        "dz2 = dwindows.reshape(n, channels, side, side, 2, 2).transpose(0, 1, 2, 4, 3, 5)",
        "dz2 = dwindows.reshape(n, channels, side, side, 2, 2).transpose(0, 1, 2, 5, 3, 4)",
    ),
    IMAGES.bug(
        "conv_last_row_of_windows_left_out",
        "lost_path lost_use",
        "['w2']",
        "for i in range(dout.shape[2]):",
        "for i in range(dout.shape[2] - 1):",
    ),
    WAVE.bug(
        "wave_dilation_forgotten",
        "shifted wrong_operand",
        "['layers'][1]['filter']",
        "delayed = [delay(h, k * dilation) for k in range(TAPS)]",
        "delayed = [delay(h, k) for k in range(TAPS)]",
    ),
    WAVE.bug(
        "wave_into_the_future",
        "shifted transposed",
        "['layers'][0]['filter']",
        "dh = dh + advance(dtap, k * dilation)",
        "dh = dh + delay(dtap, k * dilation)",
    ),
    WAVE.bug(
        "wave_gate_without_its_filter",
        "wrong_operand swapped",
        "['layers'][1]['gate']",
        "ds = dunit * a * s * (1 - s)",
        "ds = dunit * s * s * (1 - s)",
    ),
    WAVE.bug(
        "wave_later_layers_lost",
        "lost_path lost_use",
        "['layers'][1]['filter']",
        "dunit = dh + dskips @ layer",
        "dunit = dskips @ layer",
    ),
    WAVE.bug(
        "wave_skip_connection_lost",
        "lost_use lost_path",
        "['layers'][1]['filter']",
        'dunit = dh + dskips @ layer["skip"].T',
        "dunit = dh",
    ),
    WAVE.bug(
        "wave_taps_in_reverse",
        "kernel_flipped",
        "['layers'][1]['gate']",
        'dgate = jnp.stack([jnp.einsum("bti,bto->io", d, ds) for d in delayed])',
        'dgate = jnp.stack([jnp.einsum("bti,bto->io", d, ds) for d in delayed[::-1]])',
    ),
    SEPARABLE.bug(
        "depthwise_kernel_not_turned",
        "kernel_flipped",
        "['mix']",
        "dh = depthwise(dz, kernel[:, :, ::-1, ::-1])",
        "dh = depthwise(dz, kernel)",
    ),
    SEPARABLE.bug(
        "depthwise_channels_rolled",
        "shifted swapped wrong_operand",
        "['mix']",
        "dh = depthwise(dz, kernel[:, :, ::-1, ::-1])",
        "dh = depthwise(dz, kernel[::-1, :, ::-1, ::-1])",
    ),
    SEPARABLE.bug(
        "mean_pool_without_the_area",
        "scaled scaled_path",
        "['shift']",
        "dswish = (dlogits @ head.T)[:, :, None, None] / area",
        "dswish = (dlogits @ head.T)[:, :, None, None]",
    ),
    SEPARABLE.bug(
        "batch_norm_mean_of_each_image",
        "normalization_term",
        "['depthwise']",
        "correlation = (dnormalized * normalized).mean((0, 2, 3), keepdims=True)",
        "correlation = (dnormalized * normalized).mean((2, 3), keepdims=True)",
    ),
    SEPARABLE.bug(
        "swish_as_a_gate_alone",
        "activation_derivative",
        "['shift']",
        "dscaled = dswish * (gate + scaled * gate * (1 - gate))",
        "dscaled = dswish * gate",
    ),
)
RIGHT = (IMAGES.right("conv"), WAVE.right("wave"), SEPARABLE.right("separable"))
