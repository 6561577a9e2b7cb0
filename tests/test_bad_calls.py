"""What bad calls other than trainings get: for each kind the error and its words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn._numerics.precision import enable_x64
from tests.cases import KEY, WIDEST

pytestmark = pytest.mark.usefixtures("as_for_users")

X = jax.random.normal(KEY, (6, 3), WIDEST)
LABELS = jnp.array([0, 1, 0, 1, 1, 0])
CLASSIFIER = fnn.mlp((3, 4, 2))
NAN = X.at[4, 1].set(jnp.nan)


def forward_of(model, x):
    return model.forward(*model.init(KEY), x, train=False)


CROSS_ENTROPY = fnn.softmax_cross_entropy
SINGLE = np.asarray(X[:2], np.float32)
LARGE_LABELS = np.array([0, 2**40])


def narrowly(call):
    """Call where JAX has no 64-bit types."""
    with enable_x64(False):
        return call()


BAD_CALLS = {
    "probabilities outside 0 to 1": (
        lambda: fnn.binary_cross_entropy.forward(X, jnp.zeros_like(X)),
        ValueError,
        r"binary_cross_entropy\(prediction\): expected values in \[0, 1\], got .*use the loss on logits: sigmoid",
    ),
    **{
        f"{name} for a batch": (
            lambda batch=batch: fnn.check_model(CLASSIFIER, fnn.softmax_cross_entropy, batch),
            TypeError,
            rf"check_model\(batch\): expected Batch\(x, y\) or \(x, y\), got {came}.*Pass a tuple of inputs",
        )
        for name, batch, came in [
            ("inputs alone", (X,), "a tuple of length 1"),
            ("nothing", None, "NoneType"),
            ("three arrays", (X, LABELS, LABELS), "a tuple of length 3"),
            ("an array of two", X[:2], "ArrayImpl"),
        ]
    },
    "three arrays for a gradient's batch": (
        lambda: fnn.manual_value_and_grad(CLASSIFIER, fnn.softmax_cross_entropy)(
            *CLASSIFIER.init(KEY), (X, LABELS, LABELS)
        ),
        TypeError,
        r"manual_value_and_grad\(batch\): expected Batch\(x, y\) or \(x, y\), got a tuple of length 3",
    ),
    "a batch that does not fit the checked model": (
        lambda: fnn.check_model(CLASSIFIER, fnn.softmax_cross_entropy, (X[:, :2], LABELS)),
        ValueError,
        r"check_model\(batch\): layers\[0\]: linear\(3, 4\): expected x of shape",
    ),
    "a deep layer that does not fit": (
        lambda: forward_of(fnn.serial(fnn.linear(3, 4), fnn.skip(fnn.serial(fnn.tanh, fnn.linear(5, 4)))), X),
        ValueError,
        r"^layers\[1\]\.inner\.layers\[1\]: linear\(5, 4\): expected x of shape \(batch, 5\)",
    ),
    "a wrapped layer that does not fit": (
        lambda: forward_of(fnn.serial(fnn.recompute(fnn.repeat(fnn.mixed_precision(fnn.linear(5, 5)), 2))), X),
        ValueError,
        r"^layers\[0\]\.recompute\.repeat\[0\]\.mixed_precision: linear\(5, 5\): expected x of shape",
    ),
    "a shortcut that does not fit": (
        lambda: forward_of(fnn.skip(fnn.linear(3, 2), fnn.linear(4, 2)), X),
        ValueError,
        r"^shortcut: linear\(4, 2\): expected x of shape",
    ),
    "forward and backward exchanged": (
        lambda: fnn.check_layer(fnn.Layer(fnn.tanh.init, fnn.tanh.backward, fnn.tanh.forward), X),
        TypeError,
        r"check_layer\(layer\): expected a layer with forward\(params, state, x, \*, train, key=None\), got one with "
        r"forward\(residuals, dy\)\. Were forward and backward exchanged\?",
    ),
    "a forward without a mode": (
        lambda: fnn.serial(fnn.Layer(fnn.tanh.init, lambda params, state, x: (x, state, x), fnn.tanh.backward)),
        TypeError,
        r"serial\(layers\[0\]\): .*, got one with forward\(params, state, x\)\. Write Layer\(init, forward, backward\)",
    ),
    "a backward without residuals": (
        lambda: fnn.check_layer(fnn.tanh._replace(backward=lambda dy: ((), dy)), X),
        TypeError,
        r"expected a layer with backward\(residuals, dy\), got one with backward\(dy\)\. Write",
    ),
    "an init without a key": (
        lambda: fnn.check_layer(fnn.tanh._replace(init=lambda: ((), ())), X),
        TypeError,
        r"expected a layer with init\(key\), got one with init\(\)\. Write",
    ),
    "a loss for a model": (
        lambda: fnn.check_model(fnn.mean_squared_error, CLASSIFIER, (X, LABELS)),
        TypeError,
        r"check_model\(model\): expected a layer, got mean_squared_error\. That is a loss, which functions take after",
    ),
    "a model for a loss": (
        lambda: fnn.check_model(CLASSIFIER, fnn.tanh, (X, LABELS)),
        TypeError,
        r"check_model\(loss\): expected a Loss\(forward, backward\), got tanh\. That is a layer: the model comes first",
    ),
    "a word for the mode of a check": (
        lambda: fnn.check_layer(fnn.relu, X, train="no"),
        TypeError,
        r"check_layer\(train\): expected True or False, got 'no'",
    ),
    "a word for the mode of dropout": (
        lambda: fnn.dropout(0.5).forward((), (), X, train="no", key=KEY),
        TypeError,
        r"dropout\(0.5\): train: expected True or False",
    ),
    "a traced mode": (
        lambda: jax.jit(lambda train: fnn.dropout(0.5).forward((), (), X, train=train, key=KEY)[0])(True),
        TypeError,
        r"train: expected True or False, got a traced value. .*static_argnames",
    ),
    "a number for the mode of batch_norm": (
        lambda: fnn.batch_norm(3).forward(*fnn.batch_norm(3).init(KEY), X, train=1),
        TypeError,
        r"batch_norm\(3\): train: expected True or False, got 1",
    ),
    "a word for nesterov": (
        lambda: fnn.adam(1e-3, nesterov="no"),
        TypeError,
        r"adam\(nesterov\): expected True or False",
    ),
    "a word for a flag of rmsprop": (
        lambda: fnn.rmsprop(1e-3, centered="no"),
        TypeError,
        r"rmsprop\(centered\): expected True or False",
    ),
    "an abbreviated learning rate": (
        lambda: fnn.adam(lr=1e-3),
        TypeError,
        r"adam: expected arguments named learning_rate, b1, .*got 'lr'. Did you mean learning_rate\?",
    ),
    "a misspelled setting": (lambda: fnn.linear(2, out_feature=3), TypeError, r"Did you mean out_features\?"),
    "an array of sizes": (
        lambda: fnn.mlp(jnp.array([3, 4, 2])),
        ValueError,
        r"mlp\(sizes\): expected .* in a tuple or a list, .*mlp\(tuple\(sizes\)\)",
    ),
    "dropout for a normalization": (
        lambda: fnn.mlp((3, 4, 2), normalization=fnn.dropout),
        TypeError,
        r"mlp\(normalization\): expected a constructor of the width, .*got dropout, .*of its own: dropout=0\.1",
    ),
    "a normalization that makes no layer": (
        lambda: fnn.mlp((3, 4, 2), normalization=lambda width: None),
        TypeError,
        r"mlp\(normalization\): expected a constructor of the width, .*expected a layer, got None",
    ),
    "JAX's activation": (
        lambda: fnn.mlp((3, 4, 2), jax.nn.relu),
        TypeError,
        r"mlp\(activation\): expected a layer, .*Pass funcnn's own: funcnn\.relu\.",
    ),
    "JAX's activation whose layer has settings": (
        lambda: fnn.mlp((3, 4, 2), jax.nn.leaky_relu),
        TypeError,
        r"Pass funcnn's own: funcnn\.leaky_relu\(…\)\.",
    ),
    "layers in a list": (
        lambda: fnn.serial([fnn.relu, fnn.tanh]),
        TypeError,
        r"serial\(layers\[0\]\): expected a layer, .*one by one: serial\(\*layers\)",
    ),
    "a layer that is called": (
        lambda: fnn.linear(3, 2)(X),
        TypeError,
        r"linear: expected a call of one of the layer's functions, .*layer\.forward\(params, state, x, train=False\)",
    ),
    "a call of a loss": (
        lambda: fnn.huber(1.0)(X, X),
        TypeError,
        r"huber: expected a call of one of the loss's functions, .*loss\.forward\(prediction, target\)\[0\]",
    ),
    "an array for a shape": (lambda: fnn.summarize(CLASSIFIER, X), ValueError, r"got an array, .* of shape \(6, 3\)"),
    "a backward by NumPy in training": (
        lambda: fnn.fit(
            fnn.tanh._replace(backward=lambda a, da: ((), da * np.asarray(a))),
            fnn.mean_squared_error,
            fnn.sgd(0.1),
            (X, X),
            epochs=1,
            key=KEY,
        ),
        TypeError,
        r"train\(grad\): expected functions that JAX can trace, got one that calls NumPy at .*test_bad_calls\.py:\d+",
    ),
    **{
        f"a seed for the key of {layer.spec.name}": (
            lambda layer=layer: layer.init(0),
            TypeError,
            rf"{layer.spec.name}: init\(key\): expected one random key, got 0. Make one with jax\.random\.key\(0\)",
        )
        for layer in (fnn.linear(3, 2), fnn.serial(fnn.relu), fnn.repeat(fnn.relu, 2), fnn.skip(fnn.relu))
    },
    "dropout without a key": (
        lambda: fnn.dropout(0.5).forward((), (), X, train=True),
        ValueError,
        r"dropout\(0.5\): expected a random key while training, .*forward\(params, state, x, train=True, key=",
    ),
    "an accuracy of one score": (
        lambda: fnn.accuracy(X[:, :1], LABELS[:, None]),
        ValueError,
        r"accuracy: expected scores of at least two classes",
    ),
    "an accuracy of several labels a sample": (
        lambda: fnn.accuracy(X, jnp.ones((6, 3), WIDEST)),
        ValueError,
        r"accuracy\(target\): expected one-hot rows",
    ),
    "a confusion of bools": (
        lambda: fnn.confusion_matrix(X, LABELS > 0),
        TypeError,
        r"confusion_matrix\(target\): expected class labels of an",
    ),
    "an evaluation of labels beyond the classes": (
        lambda: fnn.evaluate(CLASSIFIER, fnn.softmax_cross_entropy, *CLASSIFIER.init(KEY), (X, LABELS + 2)),
        ValueError,
        "expected class labels from 0 to 1, got 2",
    ),
    "a prediction by another model's parameters": (
        lambda: fnn.predict(CLASSIFIER, *fnn.mlp((3, 5, 2)).init(KEY), X),
        ValueError,
        r"predict\(params\): expected float\d+ of shape \(3, 4\) at \[0\]\.kernel",
    ),
    "a normalization that was called": (
        lambda: fnn.mlp((3, 4, 2), normalization=fnn.batch_norm(4)),
        TypeError,
        r"mlp\(normalization\): expected a function, got .*normalization=batch_norm",
    ),
    "an activation's facts as a word": (
        lambda: fnn.activation_layer(fnn.relu_forward, fnn.relu_backward, "relu"),
        TypeError,
        r"activation_layer\(spec\): expected a LayerSpec, got 'relu'. Pass LayerSpec\('name'\)",
    ),
    "a way of decoding by a word": (
        lambda: fnn.LayerSpec("last", decoding="together"),
        ValueError,
        r"LayerSpec\(decoding\): expected Decoding\(start, advance\), 'alone' or None, got 'together'",
    ),
    "a kernel of three axes": (
        lambda: fnn.linear_forward(fnn.LinearParams(jnp.ones((2, 3, 2)), jnp.ones(2)), X),
        ValueError,
        r"linear: expected a kernel of shape \(in_features, out_features\), got \(2, 3, 2\)",
    ),
    "samples in columns": (
        lambda: forward_of(fnn.linear(6, 2), X),
        ValueError,
        r"expected x of shape \(batch, 6\), got \(6, 3\)\..* Samples are rows: where they are columns, pass x\.T\.",
    ),
    "a divergence of one row": (
        lambda: fnn.kl_divergence.forward(X[0], X[0]),
        ValueError,
        r"kl_divergence: expected a prediction of shape \(batch, \.\.\., classes\), got \(3,\)",
    ),
    "a truth for the ignored label": (
        lambda: fnn.softmax_cross_entropy_with(ignore_label=True),
        TypeError,
        r"softmax_cross_entropy_with\(ignore_label\): expected a Python integer or None, got True",
    ),
    "an array of half a unit": (
        lambda: fnn.linear(jnp.array(2.5), 2),
        TypeError,
        r"linear\(in_features\): expected a positive integer, got Array\(2\.5",
    ),
    "labels that 32 bits don't hold": (
        lambda: narrowly(
            lambda: fnn.evaluate(CLASSIFIER, CROSS_ENTROPY, *CLASSIFIER.init(KEY), (SINGLE, LARGE_LABELS))
        ),
        ValueError,
        r"expected integers from -2147483648 to 2147483647, got 0 to 1099511627776\. Renumber them, or enable 64",
    ),
    "numbers that float32 doesn't hold": (
        lambda: narrowly(lambda: fnn.predict(CLASSIFIER, *CLASSIFIER.init(KEY), np.full((2, 3), 1e39))),
        ValueError,
        r"expected numbers that float32 holds, got 1e\+39\. Divide them first",
    ),
    "parameters of an optimizer that are words": (
        lambda: fnn.check_optimizer(fnn.sgd(0.1), fnn.sgd(0.1), {"w": "relu"}),
        TypeError,
        r"expected floating parameters, got 'relu' of type str at \['w'\]\. An optimizer has no update for it",
    ),
    "traced parameters of an optimizer": (
        lambda: jax.jit(lambda w: fnn.check_optimizer(fnn.sgd(0.1), fnn.sgd(0.1), w).ok)(X),
        TypeError,
        r"expected arrays, got tracers\. Call it outside jit, vmap and grad",
    ),
    "a skip that is a word": (lambda: fnn.mlp((3, 4, 2), skip="no"), TypeError, r"mlp\(skip\): expected True or False"),
    "an initializer by its name": (
        lambda: fnn.linear(3, 2, kernel_init="he"),
        TypeError,
        r"linear\(kernel_init\): expected a function, got 'he'",
    ),
    "an initializer that wasn't called": (
        lambda: fnn.linear(3, 2, kernel_init=jax.nn.initializers.he_normal).init(KEY),
        ValueError,
        r"expected a function that draws a kernel of shape \(3, 2\), got <function .*made by a call",
    ),
    "integers into a plain forward": (
        lambda: fnn.leaky_relu_forward(jnp.array([-2])),
        TypeError,
        r"leaky_relu: expected a floating dtype, got int",
    ),
    "an epsilon that is no number": (
        lambda: fnn.batch_norm(3, epsilon=float("nan")),
        ValueError,
        "expected a finite number",
    ),
    "a rate of 1": (
        lambda: fnn.dropout(1.0),
        ValueError,
        r"dropout\(rate\): expected the probability to drop, in \[0, 1\)",
    ),
    "a negative rate": (lambda: fnn.mlp((3, 4, 2), dropout=-0.1), ValueError, r"in \[0, 1\), got -0.1"),
    "a rate that is an array": (lambda: fnn.dropout(jnp.array(0.5)), TypeError, r"number, got Array.*Pass float\(…\)"),
    "a layer of no units": (
        lambda: fnn.linear(3, 0),
        ValueError,
        r"linear\(out_features\): expected a positive integer",
    ),
    "a width that is a float": (lambda: fnn.linear(3.0, 2), TypeError, r"got 3\.0 of type float\. Pass 3; "),
    "a network of one size": (lambda: fnn.mlp((3,)), ValueError, r"mlp\(sizes\): expected at least two numbers"),
    "a network of a size": (lambda: fnn.mlp(3), ValueError, r"mlp\(sizes\): expected at least two numbers.*got 3"),
    "sizes that hold a zero": (
        lambda: fnn.mlp((3, 0, 2)),
        ValueError,
        r"mlp\(sizes\): expected a positive integer, got 0\. Pass 1 or more",
    ),
    "an activation by its name": (
        lambda: fnn.mlp((3, 4, 2), "relu"),
        TypeError,
        r"mlp\(activation\): expected a layer, got 'relu'",
    ),
    "a constructor for an activation": (
        lambda: fnn.mlp((3, 4, 2), fnn.leaky_relu),
        TypeError,
        r"mlp\(activation\): expected a layer, got <function",
    ),
    "a momentum above 1": (
        lambda: fnn.batch_norm(3, momentum=1.5),
        ValueError,
        r"batch_norm\(momentum\): expected a number in \[0, 1\]",
    ),
    "a negative epsilon": (
        lambda: fnn.layer_norm(3, epsilon=-1e-5),
        ValueError,
        r"layer_norm\(epsilon\): expected a number of at least 0",
    ),
    "a slope that is a string": (
        lambda: fnn.leaky_relu("steep"),
        TypeError,
        r"leaky_relu\(alpha\): expected a Python number",
    ),
    "scaling of what isn't finite": (
        lambda: fnn.standard_scaler.fit(NAN),
        ValueError,
        r"standard_scaler: expected finite values, got nan at index \(4, 1\)",
    ),
    "scaling of other features": (
        lambda: fnn.min_max_scaler.apply(fnn.min_max_scaler.fit(X), X[:, :2]),
        ValueError,
        r"scale: expected x of shape \(batch, 3\) like what was fitted, got float\d+ of shape \(6, 2\)",
    ),
    "an accuracy of targets that don't fit": (
        lambda: fnn.accuracy(X, LABELS[:5]),
        ValueError,
        r"accuracy: expected a prediction of shape \(batch, classes\)",
    ),
    "an accuracy of labels beyond the classes": (
        lambda: fnn.accuracy(X, LABELS + 2),
        ValueError,
        r"accuracy\(target\): expected class labels from 0 to 2, got 3",
    ),
    "a binary accuracy that would broadcast": (
        lambda: fnn.binary_accuracy(X[:, :1], X[:, 0]),
        ValueError,
        r"binary_accuracy: expected targets of the prediction's",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
def test_what_other_calls_refuse(call, error, message):
    with pytest.raises(error, match=message):
        call()
