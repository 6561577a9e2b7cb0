"""What bad input of a training gets: for each kind the error and its words, before anything is trained."""

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
        r"expected names other than 'loss', got 'loss'\. Give the metric another name",
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


def test_under_jit_shapes_and_dtypes_are_still_checked():
    train = jax.jit(lambda x, y: fit(x, y).params)
    with pytest.raises(ValueError, match=r"got shape \(6, 3\). The network has 2 outputs"):
        train(X, X)
    with pytest.raises(TypeError, match="expected a floating dtype, got int"):
        train(X.astype(int), LABELS)
