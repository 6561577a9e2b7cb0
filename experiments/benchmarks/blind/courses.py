"""Networks in NumPy as they are written in courses, with losses that work in place on their own temporaries."""

import numpy as np

from experiments.benchmarks.blind.model import Model, numpy_normal

SAMPLES, INPUTS, HIDDEN, CLASSES = 8, 5, 6, 4
LABELS = np.array([0, 3, 1, 2, 2, 0, 1, 3])
WEIGHT_DECAY, STEP = 0.1, 0.1


def softmax(scores):
    """Return the probabilities of each row."""
    probabilities = scores - scores.max(axis=1, keepdims=True)
    np.exp(probabilities, out=probabilities)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


# A classifier of two layers


def classifier_loss(params, x, y):
    """Return the mean cross-entropy of a ReLU network, with a penalty on its weights."""
    hidden = x @ params["W1"] + params["b1"]
    np.maximum(hidden, 0, out=hidden)
    probabilities = softmax(hidden @ params["W2"] + params["b2"])
    data = -np.log(probabilities[np.arange(len(y)), y]).mean()
    return data + 0.5 * WEIGHT_DECAY * ((params["W1"] ** 2).sum() + (params["W2"] ** 2).sum())


def classifier_gradient(params, x, y):
    """Return the gradient of ``classifier_loss``."""
    w1, b1, w2, b2 = params["W1"], params["b1"], params["W2"], params["b2"]
    n = len(y)
    hidden = np.maximum(x @ w1 + b1, 0)
    dscores = softmax(hidden @ w2 + b2)
    dscores[np.arange(n), y] -= 1
    dscores /= n
    dw2 = hidden.T @ dscores + WEIGHT_DECAY * w2
    db2 = dscores.sum(axis=0)
    dhidden = dscores @ w2.T
    dhidden[hidden <= 0] = 0
    dw1 = x.T @ dhidden + WEIGHT_DECAY * w1
    db1 = dhidden.sum(axis=0)
    return {"W1": dw1, "b1": db1, "W2": dw2, "b2": db2}


def make_classifier(dtype):
    """Return weights of two layers and eight samples."""
    w1, b1, w2, b2, x = numpy_normal(
        dtype, 1, (INPUTS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,), (SAMPLES, INPUTS)
    )
    return {"W1": w1 / 2, "b1": b1 / 4, "W2": w2 / 2, "b2": b2 / 4}, (x, LABELS)


CLASSIFIER = Model("classifier in NumPy", classifier_loss, classifier_gradient, make_classifier)


# A support vector machine


def margins_loss(params, x, y):
    """Return the multiclass hinge loss of a linear model."""
    scores = x @ params["W"] + params["b"]
    correct = scores[np.arange(len(y)), y].copy()
    scores -= correct[:, None]
    scores += 1
    np.maximum(scores, 0, out=scores)
    scores[np.arange(len(y)), y] = 0
    return scores.sum() / len(y) + WEIGHT_DECAY * (params["W"] ** 2).sum()


def margins_gradient(params, x, y):
    """Return the gradient of ``margins_loss``."""
    rows = np.arange(len(y))
    scores = x @ params["W"] + params["b"]
    violated = (scores - scores[rows, y][:, None] + 1 > 0).astype(x.dtype)
    violated[rows, y] = 0
    violated[rows, y] = -violated.sum(axis=1)
    dw = x.T @ violated / len(y)
    dw += 2 * WEIGHT_DECAY * params["W"]
    return {"W": dw, "b": violated.sum(axis=0) / len(y)}


def make_margins(dtype):
    """Return a linear model and eight samples."""
    w, b, x = numpy_normal(dtype, 2, (INPUTS, CLASSES), (CLASSES,), (SAMPLES, INPUTS))
    return {"W": w / 2, "b": b / 2}, (x, LABELS)


MARGINS = Model("support vectors in NumPy", margins_loss, margins_gradient, make_margins)


# Batch normalization and dropout


def normalized_loss(params, x, y, keep):
    """Return the mean squared error of a network with batch normalization, tanh and inverted dropout."""
    w1, gamma, beta, w2, b2 = params
    z = x @ w1
    z -= z.mean(axis=0)
    z /= np.sqrt((z**2).mean(axis=0) + 1e-5)
    hidden = np.tanh(gamma * z + beta)
    hidden *= keep / 0.75
    return ((hidden @ w2 + b2 - y) ** 2).sum() / (2 * len(x))


def normalized_gradient(params, x, y, keep):
    """Return the gradient of ``normalized_loss``."""
    w1, gamma, beta, w2, b2 = params
    n = len(x)
    z = x @ w1
    centred = z - z.mean(axis=0)
    std = np.sqrt((centred**2).mean(axis=0) + 1e-5)
    z_hat = centred / std
    hidden = np.tanh(gamma * z_hat + beta)
    dropped = hidden * keep / 0.75
    derror = (dropped @ w2 + b2 - y) / n
    dhidden = derror @ w2.T * keep / 0.75
    dscaled = dhidden * (1 - hidden**2)
    dgamma = (dscaled * z_hat).sum(axis=0)
    dz_hat = dscaled * gamma
    dvar = (dz_hat * centred).sum(axis=0) * -0.5 / std**3
    dmean = -dz_hat.sum(axis=0) / std
    dz = dz_hat / std + dvar * 2 * centred / n + dmean / n
    return [x.T @ dz, dgamma, dscaled.sum(axis=0), dropped.T @ derror, derror.sum(axis=0)]


def make_normalized(dtype):
    """Return a list of parameters, eight samples and a dropout mask."""
    w1, gamma, beta, w2, b2, x, y = numpy_normal(
        dtype, 3, (INPUTS, HIDDEN), (HIDDEN,), (HIDDEN,), (HIDDEN, 2), (2,), (SAMPLES, INPUTS), (SAMPLES, 2)
    )
    keep = (np.random.default_rng(4).random((SAMPLES, HIDDEN)) < 0.75).astype(dtype)
    return [w1, 1 + gamma / 4, beta / 2, w2, b2], (x, y, keep)


NORMALIZED = Model("normalization in NumPy", normalized_loss, normalized_gradient, make_normalized)


# Words in context


CONTEXTS = np.array([[0, 2, 2, 5], [1, 3, 0, 3], [4, 4, 4, 6], [6, 5, 1, 2]])
CENTRES = np.array([1, 0, 5, 3])


def words_loss(params, contexts, centres):
    """Return the mean cross-entropy of the word amid each context, from the mean of the context's embeddings."""
    mean = params["embeddings"][contexts].mean(axis=1)
    probabilities = softmax(mean @ params["output"])
    return float(-np.log(probabilities[np.arange(len(centres)), centres]).mean())


def words_gradient(params, contexts, centres):
    """Return the gradient of ``words_loss``."""
    embeddings, output = params["embeddings"], params["output"]
    n, width = contexts.shape
    mean = embeddings[contexts].mean(axis=1)
    dscores = softmax(mean @ output)
    dscores[np.arange(n), centres] -= 1
    dscores /= n
    doutput = mean.T @ dscores
    dmean = dscores @ output.T
    dcontext = np.repeat(dmean[:, None] / width, width, axis=1)
    dembeddings = np.zeros_like(embeddings)
    np.add.at(dembeddings, contexts, dcontext)
    return {"embeddings": dembeddings, "output": doutput}


def make_words(dtype):
    """Return embeddings of seven words and four contexts."""
    embeddings, output = numpy_normal(dtype, 5, (7, 3), (3, 7))
    return {"embeddings": embeddings, "output": output}, (CONTEXTS, CENTRES)


WORDS = Model("embeddings in NumPy", words_loss, words_gradient, make_words)


BUGS = (
    CLASSIFIER.bug("course_classifier_sum_for_mean", "scaled", "['b2']", "dscores /= n", "dscores /= 1"),
    CLASSIFIER.bug(
        "course_classifier_relu_masks_its_gradient",
        "activation_derivative mask wrong_operand",
        "['b1']",
        "dhidden[hidden <= 0] = 0",
        "dhidden[dhidden <= 0] = 0",
    ),
    CLASSIFIER.bug(
        "course_classifier_twice_the_weight_decay",
        "offset_by_parameter",
        "['W1']",
        "dw1 = x.T @ dhidden + WEIGHT_DECAY * w1",
        "dw1 = x.T @ dhidden + 2 * WEIGHT_DECAY * w1",
    ),
    CLASSIFIER.bug(
        "course_classifier_bias_keeps_the_batch_axis",
        "shape",
        "['b1']",
        "db1 = dhidden.sum(axis=0)",
        "db1 = dhidden.sum(axis=0, keepdims=True)",
    ),
    CLASSIFIER.bug(
        "course_classifier_steps_before_the_first_layer",
        "updated_weights",
        "['W1']",
        "dhidden = dscores @ w2.T",
        "dhidden = dscores @ (w2 - STEP * dw2).T",
    ),
    MARGINS.bug(
        "course_margins_label_counted_once",
        "scaled_path lost_path wrong_operand",
        "['b']",
        "violated[rows, y] = -violated.sum(axis=1)",
        "violated[rows, y] = -1",
    ),
    MARGINS.bug(
        "course_margins_decay_for_half_a_square",
        "offset_by_parameter",
        "['W']",
        "dw += 2 * WEIGHT_DECAY * params",
        "dw += WEIGHT_DECAY * params",
    ),
    NORMALIZED.bug(
        "course_batch_norm_variance_a_constant",
        "normalization_term",
        "[0]",
        "dz = dz_hat / std + dvar * 2 * centred / n + dmean / n",
        "dz = dz_hat / std + dmean / n",
    ),
    NORMALIZED.bug(
        "course_batch_norm_other_count_of_samples",
        "normalization_term scaled_path",
        "[0]",
        "dvar * 2 * centred / n",
        "dvar * 2 * centred / (n - 1)",
    ),
    NORMALIZED.bug(
        "course_batch_norm_gain_from_the_input",
        "wrong_operand normalization_term",
        "[1]",
        "dgamma = (dscaled * z_hat)",
        "dgamma = (dscaled * z)",
    ),
    NORMALIZED.bug(
        "course_dropout_scale_forgotten",
        "scaled scaled_path",
        "[2]",
        "dhidden = derror @ w2.T * keep / 0.75",
        "dhidden = derror @ w2.T * keep",
    ),
    NORMALIZED.bug(
        "course_dropout_mask_forgotten",
        "mask",
        "[2]",
        "dhidden = derror @ w2.T * keep / 0.75",
        "dhidden = derror @ w2.T / 0.75",
    ),
    WORDS.bug(
        "course_words_repeated_word_added_once",
        "lost_use unit",
        "['embeddings']",
        "np.add.at(dembeddings, contexts, dcontext)",
        "dembeddings[contexts] += dcontext",
    ),
    WORDS.bug(
        "course_words_mean_for_a_sum",
        "scaled scaled_path",
        "['embeddings']",
        "np.repeat(dmean[:, None] / width, width, axis=1)",
        "np.repeat(dmean[:, None], width, axis=1)",
    ),
)
RIGHT = (
    CLASSIFIER.right("course_classifier"),
    MARGINS.right("course_margins"),
    NORMALIZED.right("course_batch_norm"),
    WORDS.right("course_words"),
)
