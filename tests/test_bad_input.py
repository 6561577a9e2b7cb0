"""What bad input gets: for each kind the error and its words, before anything is trained."""

import jax
import jax.numpy as jnp
import pytest

import funcnn as fnn
from tests.cases import KEY, WIDEST

pytestmark = pytest.mark.usefixtures("as_for_users")

X = jax.random.normal(KEY, (6, 3), WIDEST)
LABELS = jnp.array([0, 1, 0, 1, 1, 0])
ONE_HOT = jax.nn.one_hot(LABELS, 2, dtype=WIDEST)
CLASSIFIER = fnn.mlp((3, 4, 2))
NAN = X.at[4, 1].set(jnp.nan)


def fit(x=X, y=LABELS, *, model=CLASSIFIER, loss=fnn.softmax_cross_entropy, **changes):
    settings = {"optimizer": fnn.sgd(0.1), "epochs": 1, "key": KEY} | changes
    return fnn.fit(model, loss, data=(x, y), **settings)


def forward_of(model, x):
    return model.forward(*model.init(KEY), x, train=False)


def wrong_gradient(change):
    """A ``(model, loss) -> GradFn`` whose gradients are changed."""

    def grad(model, loss):
        def value_and_grad(params, state, batch, *, key=None):
            aux, grads = fnn.manual_value_and_grad(model, loss)(params, state, batch, key=key)
            return aux, change(grads)

        return value_and_grad

    return grad


BAD_FEATURES = {
    "another number of features": (
        X[:, :2],
        ValueError,
        r"linear\(3, 4\): expected x of shape \(batch, 3\), got \(6, 2\). Give it 3 features",
    ),
    "unbatched": (X[0], ValueError, r"expected x with the batch as its first axis, .*got shape \(3,\).*x\[None, :\]"),
    "no sample": (X[:0], ValueError, r"expected at least one sample.*, got shape \(0, 3\)"),
    "no feature": (X[:, :0], ValueError, r"expected at least one sample and one feature, got shape \(6, 0\)"),
    "integers": (
        X.astype(int),
        TypeError,
        r"expected a floating dtype, got int\d+ of shape \(6, 3\).*x = jnp\.asarray\(x, float\)",
    ),
    "complex": (X.astype(jnp.complex64), TypeError, r"expected a floating dtype, got complex\d+ of shape \(6, 3\)"),
    "another float": (X.astype(jnp.bfloat16), TypeError, "expected x in the parameters' dtype .*, got bfloat16"),
}
every_bad_x = pytest.mark.parametrize(("x", "error", "message"), BAD_FEATURES.values(), ids=BAD_FEATURES)


@every_bad_x
def test_features_that_do_not_fit_forward(x, error, message):
    params, state = CLASSIFIER.init(KEY)
    with pytest.raises(error, match=message):
        CLASSIFIER.forward(params, state, x, train=True)


@every_bad_x
def test_features_that_do_not_fit_predict_while_tracing(x, error, message):
    params, state = CLASSIFIER.init(KEY)
    with pytest.raises(error, match=message):
        fnn.predict(CLASSIFIER, params, state, x)


@every_bad_x
def test_features_that_do_not_fit_a_gradient_under_jit(x, error, message):
    params, state = CLASSIFIER.init(KEY)
    gradient = jax.jit(fnn.manual_value_and_grad(CLASSIFIER, fnn.softmax_cross_entropy))
    with pytest.raises(error, match=message):
        gradient(params, state, (x, jnp.zeros(x.shape[:1], int)))


BAD_FITS = {
    **{
        name: ({"x": x, "y": LABELS[: x.shape[0]]}, error, message)
        for name, (x, error, message) in BAD_FEATURES.items()
    },
    "a NaN in x": (
        {"x": NAN},
        ValueError,
        r"fit\(data\): x: expected finite .*, got nan at index \(4, 1\) \(1 such in all\)",
    ),
    "an infinity in y": (
        {"y": X[:, :2].at[0, 0].set(jnp.inf), "loss": fnn.mean_squared_error},
        ValueError,
        r"fit\(data\): y: expected finite values, got inf at index \(0, 0\)",
    ),
    "a NaN in the validation data": (
        {"validation": (NAN, LABELS)},
        ValueError,
        r"fit\(validation\): x: expected finite values, got nan",
    ),
    "fewer targets": ({"y": LABELS[:5]}, ValueError, r"expected a target for each of the 6 samples.* y \(5,\)"),
    "labels from 1": (
        {"y": LABELS + 1},
        ValueError,
        r"expected class labels from 0 to 1, got 2 at index \(1,\) \(3 such in all\)",
    ),
    "a label of -1": ({"y": LABELS - 1}, ValueError, "expected class labels from 0 to 1, got -1"),
    "labels as floats": (
        {"y": LABELS.astype(WIDEST)},
        TypeError,
        r"expected class labels of an integer dtype, got float.*y = jnp\.asarray\(y, int\)",
    ),
    "one-hot of the wrong width": (
        {"y": jnp.eye(3, dtype=WIDEST)[LABELS]},
        ValueError,
        r"or one-hot targets of shape \(6, 2\), got shape \(6, 3\). The network has 2 outputs",
    ),
    "targets that would broadcast": (
        {"y": X[:, 0], "model": fnn.mlp((3, 1)), "loss": fnn.mean_squared_error},
        ValueError,
        r"expected targets of the prediction's shape \(6, 1\), got \(6,\), which would broadcast.*y\[\.\.\., None\]",
    ),
    "targets of another dtype": (
        {"y": LABELS[:, None], "model": fnn.mlp((3, 1)), "loss": fnn.sigmoid_cross_entropy},
        TypeError,
        r"expected targets in the prediction's dtype (float\d+), got int\d+.*y = jnp\.asarray\(y, jnp\.\1\)",
    ),
    "probabilities outside 0 to 1 as targets": (
        {"y": 2 * ONE_HOT},
        ValueError,
        r"\(target\): expected values in \[0, 1\], got 2.0",
    ),
    "a batch larger than the data": (
        {"batch_size": 7},
        ValueError,
        r"fit\(batch_size\): expected at most the 6 samples there are, got 7",
    ),
    "a batch of nothing": ({"batch_size": 0}, ValueError, r"fit\(batch_size\): expected a positive integer, got 0"),
    "half a batch": ({"batch_size": 2.5}, TypeError, r"fit\(batch_size\): expected a positive integer, got 2.5"),
    "no epoch": ({"epochs": 0}, ValueError, r"fit\(epochs\): expected a positive integer, got 0"),
    "three arrays": (
        {"validation": (X, LABELS, X)},
        TypeError,
        r"fit\(validation\): expected Batch\(x, y\) or \(x, y\)",
    ),
    "an array for data": ({"validation": X}, TypeError, r"expected Batch\(x, y\) or \(x, y\), got ArrayImpl"),
    "metrics without validation": (
        {"metrics": {"accuracy": fnn.accuracy}},
        ValueError,
        r"fit\(metrics\): expected validation data",
    ),
    "a metric named loss": (
        {"metrics": {"loss": fnn.accuracy}, "validation": (X, LABELS)},
        ValueError,
        "the name 'loss' is the loss's own",
    ),
    "parameters of another model": (
        {"params": fnn.mlp((3, 5, 2)).init(KEY)[0]},
        ValueError,
        r"fit\(params\): expected float\d+ of shape \(3, 4\) at \[0\]\.kernel, .*got float\d+ of shape \(3, 5\)",
    ),
    "state of another model": (
        {"state": ()},
        ValueError,
        r"fit\(state\): expected the tree structure of what the model's init returns",
    ),
    "a gradient of another structure": (
        {"grad": wrong_gradient(lambda grads: list(grads))},
        ValueError,
        r"train\(grad\): expected the tree structure of the parameters.*one entry for every parameter",
    ),
    "a gradient of another shape": (
        {"grad": wrong_gradient(lambda grads: jax.tree.map(lambda g: g[None], grads))},
        ValueError,
        r"train\(grad\): expected float\d+ of shape \(3, 4\) at \[0\]\.kernel, .*got float\d+ of shape \(1, 3, 4\)",
    ),
    "a gradient of another dtype": (
        {"grad": wrong_gradient(lambda grads: jax.tree.map(lambda g: g.astype(jnp.bfloat16), grads))},
        ValueError,
        r"train\(grad\): expected float\d+ .*, got bfloat16",
    ),
    "an optimizer that wasn't called": (
        {"optimizer": fnn.adam},
        TypeError,
        r"fit\(optimizer\): expected an optax transformation, got <function adam.*Call the constructor",
    ),
    "a model that wasn't called": (
        {"model": fnn.mlp},
        TypeError,
        r"fit\(model\): expected a layer, got <function mlp",
    ),
    "a list for a model": ({"model": [fnn.relu]}, TypeError, r"fit\(model\): expected a layer, got \["),
    "a loss that is a function": (
        {"loss": fnn.mean_squared_error_forward},
        TypeError,
        r"fit\(loss\): expected a Loss\(forward, backward\), got <function",
    ),
    "a loss of every sample": (
        {"loss": fnn.Loss(lambda p, y: (p, p), lambda r, d: r)},
        ValueError,
        r"fit\(data\): the loss: expected a floating scalar, got float\d+ of shape \(6, 2\)",
    ),
    "a seed for a key": ({"key": 0}, TypeError, r"fit\(key\): expected one random key, got 0.*jax\.random\.key\(0\)"),
    "keys for a key": ({"key": jax.random.split(KEY)}, TypeError, r"fit\(key\): expected one random key.*vmap"),
    "a gradient that is a name": ({"grad": "manual"}, TypeError, r"fit\(grad\): expected a function, got 'manual'"),
    "words for targets": (
        {"y": ["a"] * 6},
        TypeError,
        r"fit\(data\): y: expected an array of numbers, got list of dtype",
    ),
    "nothing for targets": ({"y": None}, TypeError, r"fit\(data\): y: expected an array of numbers, got NoneType"),
    "integers for parameters": (
        {"params": jax.tree.map(lambda leaf: leaf.astype(int), CLASSIFIER.init(KEY)[0])},
        TypeError,
        r"fit\(params\): expected floating parameters, got int\d+ at \[0\]\.kernel",
    ),
    "a state of another dtype": (
        {
            "model": fnn.mlp((3, 4, 2), normalization=fnn.batch_norm),
            "state": jax.tree.map(
                lambda leaf: leaf.astype(jnp.bfloat16), fnn.mlp((3, 4, 2), normalization=fnn.batch_norm).init(KEY)[1]
            ),
        },
        ValueError,
        r"batch_norm\(4\): expected mean as float\d+ of shape \(4,\), got bfloat16 .*all in one dtype",
    ),
    "another number of validation features": (
        {"validation": (X[:, :2], LABELS)},
        ValueError,
        r"fit\(validation\): layers\[0\]: linear\(3, 4\): expected x of shape \(batch, 3\), got \(6, 2\)",
    ),
    "validation labels beyond the classes": (
        {"validation": (X, LABELS + 1)},
        ValueError,
        r"fit\(validation\): softmax_cross_entropy\(target\): expected class labels from 0 to 1, got 2",
    ),
    "validation batches that do not fit": (
        {"validation": [(X[:, :2], LABELS)]},
        ValueError,
        r"fit\(validation\): a batch: layers\[0\]: linear\(3, 4\): expected x of shape",
    ),
    "a word for progress": (
        {"progress": "no"},
        TypeError,
        r"fit\(progress\): expected True or False, got 'no' of type",
    ),
    "a number for progress": ({"progress": 1}, TypeError, r"fit\(progress\): expected True or False, got 1"),
    "a word for monitor": (
        {"monitor": "no"},
        TypeError,
        r"fit\(monitor\): expected True, False or a positive integer, got 'no'",
    ),
    "early stopping among the callbacks": (
        {"callbacks": [fnn.EarlyStopping(5)]},
        TypeError,
        r"fit\(callbacks\): expected functions, .*, got EarlyStopping. .*early_stopping=EarlyStopping\(…\)",
    ),
    "early stopping for the callbacks": (
        {"callbacks": fnn.EarlyStopping(5)},
        TypeError,
        r"fit\(callbacks\): .*early_stopping=EarlyStopping",
    ),
    "the class of checkpoints among the callbacks": (
        {"callbacks": [fnn.Checkpoints]},
        TypeError,
        r"fit\(callbacks\): .*got Checkpoints. .*checkpoints=Checkpoints\(…\)",
    ),
    "Keras's name of the validation loss": (
        {"validation": (X, LABELS), "early_stopping": fnn.EarlyStopping(5, monitor="val_loss")},
        ValueError,
        r"EarlyStopping\(monitor\): .*got 'val_loss'. All of them are figures on the validation data: "
        r"write monitor='loss'\.",
    ),
    "Keras's name of a metric that is not given": (
        {"validation": (X, LABELS), "early_stopping": fnn.EarlyStopping(5, monitor="val_accuracy", mode="max")},
        ValueError,
        r"write monitor='accuracy', and pass metrics=\{'accuracy': …\}",
    ),
    "targets and then inputs": (
        {"x": LABELS, "y": X},
        ValueError,
        r"fit\(data\): expected inputs and then targets, .*Exchange them: \(y, x\)",
    ),
    "rows of classes that sum to 2": (
        {"y": jnp.ones((6, 2), WIDEST)},
        ValueError,
        r"fit\(data\): y: expected one-hot rows .* sum to 1, got the sum 2 at index \(0,\) \(6 such in all\)",
    ),
    "classes of a single output": (
        {"model": fnn.mlp((3, 1)), "y": 0 * LABELS},
        ValueError,
        r"expected scores of at least two classes, got shape \(6, 1\).*sigmoid_cross_entropy",
    ),
    **{
        f"{output.spec.name} before {loss.spec.name}": (
            {"model": fnn.mlp((3, 2), output=output), "loss": loss},
            ValueError,
            rf"fit: expected a model that gives logits, got one that ends in layers\[1\] {output.spec.name}, which "
            rf"{loss.spec.name} contains already.*Leave the output layer out, or take .*, {other}",
        )
        for output in (fnn.softmax, fnn.sigmoid)
        for loss, other in (
            (fnn.softmax_cross_entropy, "categorical_cross_entropy"),
            (fnn.sigmoid_cross_entropy, "binary_cross_entropy"),
        )
    },
    "a layer of probabilities by its spec alone": (
        {"model": fnn.serial(CLASSIFIER, fnn.identity._replace(spec=fnn.LayerSpec("own", output_range=(0.0, 1.0))))},
        ValueError,
        r"got one that ends in layers\[1\] own",
    ),
    "a softmax of one output": (
        {"model": fnn.mlp((3, 1), output=fnn.softmax), "loss": fnn.mean_squared_error, "y": X[:, :1]},
        ValueError,
        r"fit\(data\): expected at least two outputs in front of layers\[1\] softmax, got shape \(6, 1\)",
    ),
    "a later batch whose rows of classes sum to 2": (
        {"validation": [(X, ONE_HOT), (X, jnp.ones((6, 2), WIDEST))], "y": ONE_HOT},
        ValueError,
        r"fit\(validation\): a batch: y: expected one-hot rows .* sum to 1, got the sum 2 at index \(0,\)",
    ),
    "images into a linear layer": (
        {"x": X.reshape(2, 3, 3), "y": LABELS[:2], "model": fnn.mlp((9, 2))},
        ValueError,
        r"expected x of shape \(batch, ..., 9\), got \(2, 3, 3\). Flatten every sample.*x\.reshape\(len\(x\), -1\)",
    ),
    "one feature without an axis": (
        {"x": X[:, 0], "model": fnn.mlp((1, 2))},
        ValueError,
        r"got shape \(6,\). For samples of one feature, pass x\[:, None\]",
    ),
    "parameters inside a result": (
        {"params": fnn.Trained(*CLASSIFIER.init(KEY), (), None)},
        ValueError,
        r"fit\(params\): expected the tree structure .*Pass its params: trained\.params",
    ),
    "complex features": (
        {"x": X.astype(jnp.complex64)},
        TypeError,
        r"got complex64 of shape \(6, 3\). Give the two parts as features: jnp\.concatenate\(\[x\.real, x\.imag\]",
    ),
    "a callback for callbacks": (
        {"callbacks": print},
        TypeError,
        r"fit\(callbacks\): expected a sequence of functions",
    ),
    "a list for metrics": (
        {"metrics": [fnn.accuracy], "validation": (X, LABELS)},
        TypeError,
        r"fit\(metrics\): expected metrics by name",
    ),
    "a metric of every sample": (
        {"metrics": {"wrong": lambda p, y: p}, "validation": (X, LABELS)},
        ValueError,
        r"fit\(metrics\): wrong: expected a scalar, got float\d+ of shape \(6, 2\)",
    ),
    "dropout whose key is lost": (
        {
            "model": fnn.mlp((3, 4, 2), dropout=0.5),
            "grad": lambda model, loss: (
                lambda params, state, batch, key=None: fnn.manual_value_and_grad(model, loss)(params, state, batch)
            ),
        },
        ValueError,
        r"dropout\(0.5\): expected a random key while training, got key=None.*train=True, key=jax\.random\.key\(0\)",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_FITS.values(), ids=BAD_FITS)
def test_what_fit_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        fit(**changes)


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
    "a rate that is an array": (lambda: fnn.dropout(jnp.array(0.5)), TypeError, "expected a Python number, got Array"),
    "a layer of no units": (
        lambda: fnn.linear(3, 0),
        ValueError,
        r"linear\(out_features\): expected a positive integer",
    ),
    "a width that is a float": (lambda: fnn.linear(3.0, 2), TypeError, r"got 3.0 of type float"),
    "a network of one size": (lambda: fnn.mlp((3,)), ValueError, r"mlp\(sizes\): expected at least two numbers"),
    "a network of a size": (lambda: fnn.mlp(3), ValueError, r"mlp\(sizes\): expected at least two numbers.*got 3"),
    "sizes that hold a zero": (
        lambda: fnn.mlp((3, 0, 2)),
        ValueError,
        r"mlp\(sizes\): expected a positive integer, got 0",
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


def test_under_jit_shapes_and_dtypes_are_still_checked():
    train = jax.jit(lambda x, y: fit(x, y).params)
    with pytest.raises(ValueError, match=r"got shape \(6, 3\). The network has 2 outputs"):
        train(X, X)
    with pytest.raises(TypeError, match="expected a floating dtype, got int"):
        train(X.astype(int), LABELS)
