"""Models of tokens and sequences in all that surrounds them: checks, training, the monitor, files, a mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.health import monitored_value_and_grad
from funcnn.layers.traversal import layer_names
from tests.cases import KEY, WIDEST, largest_gap

VOCABULARY, TIME = 6, 5
GPT = fnn.gpt(VOCABULARY, TIME, 8, 2, 2)
LSTM = fnn.serial(fnn.embedding(VOCABULARY, 4), fnn.lstm(4, 8), fnn.linear(8, VOCABULARY))
# A token is followed by the next one: what comes next is known after one token.
STARTS = jnp.arange(12)[:, None] + jnp.arange(TIME + 1)[None, :]
X, Y = STARTS[:, :-1] % VOCABULARY, STARTS[:, 1:] % VOCABULARY


def fit(model, **settings):
    given = {"epochs": 40, "key": KEY, "batch_size": 6} | settings
    return fnn.fit(model, fnn.softmax_cross_entropy, fnn.adam(0.03), (X, Y), **given)


@pytest.fixture(
    scope="module", params=[pytest.param(GPT, id="gpt"), pytest.param(LSTM, id="lstm", marks=pytest.mark.thorough)]
)
def monitored(request):
    return request.param, fit(request.param, monitor=1)


@pytest.mark.thorough
def test_a_monitored_run_learns_and_is_well(monitored):
    model, trained = monitored
    health = trained.history.health
    assert health.ok, str(health)
    figures = fnn.evaluate(model, fnn.softmax_cross_entropy, trained.params, trained.state, (X, Y),
                           metrics={"accuracy": fnn.accuracy})  # fmt: skip
    assert figures["accuracy"] > 0.99
    measures, names = health.record.measures, health.record.names
    for row, name in enumerate(names):
        kind = name.split()[-1]
        entropy, saturated = np.asarray(measures.attention_entropy)[:, row], np.asarray(measures.saturated)[:, row]
        # The mean over causal queries of log (1, 2, …, time) is the entropy of weights that are all equal.
        most = np.log(np.arange(1, TIME + 1)).mean()
        expected = (entropy > 0.2 * most) & (entropy < 1.0001 * most) if kind == "self_attention" else entropy == 0
        assert expected.all(), name
        assert (saturated < 0.5).all()
        assert np.isfinite(np.asarray(measures.gradient_norm)[:, row]).all()
    assert ("entropy" in str(health)) == (model is GPT)


def test_both_uses_of_a_tied_table_have_a_record(monitored):
    model, trained = monitored
    record = trained.history.health.record
    if model is GPT:
        assert (record.names[0], record.names[-1]) == ("layers[0] embedding", "layers[4] unembedding")
        norms = np.asarray(record.measures.parameter_norm)
        np.testing.assert_allclose(norms[:, 0], norms[:, -1], rtol=1e-6)
        gradients = np.asarray(record.measures.gradient_norm)
        assert (gradients[:, 0] != gradients[:, -1]).all()
        assert (gradients[:, [0, -1]] > 0).all()


def test_files_and_predictions(monitored, tmp_path):
    model, trained = monitored
    fnn.save(tmp_path / "weights.safetensors", trained.params, trained.state)
    params, state = fnn.load(tmp_path / "weights.safetensors", model)
    prediction = fnn.predict(model, params, state, X)
    assert (prediction.argmax(axis=-1)[:, 1:] == Y[:, 1:]).all()
    made = fnn.generate(model, params, state, X[:2, :2], 3, temperature=0.0)
    np.testing.assert_array_equal(made, STARTS[:2, :5] % VOCABULARY)


@pytest.mark.parametrize(
    ("scale", "found"), [pytest.param(1.0, (), marks=pytest.mark.thorough), (2.0, ("exploding gradients",))]
)
def test_gradients_that_explode_through_time_are_found(scale, found):
    """The sign of the first of 20 small inputs, which is not learnt in so few epochs."""
    model = fnn.serial(fnn.rnn(1, 8), fnn.last_step, fnn.linear(8, 1))
    params, _ = model.init(KEY)
    params = (params[0]._replace(hidden_kernel=scale * params[0].hidden_kernel), *params[1:])
    x = 1e-7 * jax.random.normal(jax.random.key(1), (24, 20, 1))  # so small that tanh stays linear
    y = (x[:, 0] > 0).astype(x.dtype)
    trained = fnn.fit(
        model, fnn.sigmoid_cross_entropy, fnn.sgd(1e-3), (x, y), epochs=12, key=KEY, params=params, monitor=1
    )
    health = trained.history.health
    kinds = tuple(finding.kind for finding in health.findings if finding.kind == "exploding gradients")
    assert kinds == found, str(health)
    growth = np.asarray(health.record.measures.growth_over_time)
    assert (growth[:, 1:] == 0).all()
    # 19 steps back; the input's kernel sees one direction of the gradient, which the hidden kernel turns.
    assert 1 / 5 < growth[0, 0] / scale**19 < 5
    assert "over time" in str(health)
    for finding in health.findings:
        if finding.kind in found:
            assert finding.layer == "layers[0] rnn"


@pytest.mark.thorough
@pytest.mark.parametrize("model", [fnn.gpt(VOCABULARY, 3, 4, 2, 1, dropout=0.2), LSTM], ids=["gpt", "lstm"])
def test_gradients_are_autodiff_s_layer_by_layer(model):
    report = fnn.check_model(model, fnn.softmax_cross_entropy, (X[:2, :3], Y[:2, :3]))
    assert report.ok, str(report)
    checked = {step.path.split(": ")[0] for step in report.steps} - {"loss"}
    assert checked == set(layer_names(model))


@pytest.mark.thorough
def test_a_forgotten_use_of_a_tied_table_is_found():
    tied = fnn.tied(fnn.embedding(VOCABULARY, 4), fnn.unembedding(VOCABULARY, 4))

    def backward(residuals, dy):
        (_, *others), dx = tied.backward(residuals, dy)
        return (fnn.unembedding_backward(residuals[-1], dy)[0], *others), dx

    report = fnn.check_model(tied._replace(backward=backward), fnn.softmax_cross_entropy, (X[:3], Y[:3]))
    assert not report.ok
    assert [step.path.split(":")[0] for step in report.steps if not step.ok] == ["tied"]


def test_wrapped_models_give_the_gradients_and_both_records():
    tied = fnn.tied(fnn.embedding(VOCABULARY, 4), fnn.tanh, fnn.unembedding(VOCABULARY, 4))
    wrapped = fnn.mixed_precision(fnn.recompute(tied), jnp.float32)
    params, state = jax.jit(tied.init)(KEY)

    @jax.jit
    def both(params):
        plain = fnn.manual_value_and_grad(tied, fnn.softmax_cross_entropy)(params, state, (X, Y))
        return plain, monitored_value_and_grad(wrapped, fnn.softmax_cross_entropy)(params, state, (X, Y))

    plain, (*found, measures) = both(params)
    assert largest_gap(tuple(found), plain) < 1e-5
    assert measures.gradient_norm.shape == (3,)
    assert measures.gradient_norm[0] != measures.gradient_norm[2]
    assert measures.parameter_norm[0] == measures.parameter_norm[2] > 0


@pytest.mark.thorough
def test_a_mesh_splits_the_batch():
    on_mesh = fit(LSTM, epochs=2, mesh=jax.make_mesh((1,), ("data",)))
    assert largest_gap(on_mesh.params, fit(LSTM, epochs=2).params) < (1e-12 if jnp.float64 == WIDEST else 1e-5)


BAD = {
    "an unknown token": (
        {"data": (X.at[3, 2].set(VOCABULARY), Y)},
        r"fit\(data\): layers\[0\]: embedding\(6, 8\): expected tokens from 0 to 5, got 6 at index \(3, 2\)",
    ),
    "an unknown token in a later batch": (
        {"data": [(X, Y), (X - 1, Y)], "batch_size": None},
        r"fit\(data\): a batch: layers\[0\]: embedding\(6, 8\): expected tokens from 0 to 5, got -1",
    ),
    "an unknown token in the validation data": (
        {"validation": (X + 1, Y)},
        r"fit\(validation\): layers\[0\]: embedding\(6, 8\): expected tokens from 0 to 5, got 6",
    ),
    "floats": ({"data": (X.astype(float), Y)}, r"layers\[0\]: embedding\(6, 8\): expected tokens of an integer dtype"),
    "a longer sequence": (
        {"data": (STARTS % VOCABULARY, STARTS % VOCABULARY)},
        r"layers\[1\]: learned_positions\(5, 8\): expected sequences of at most 5 positions, got 6",
    ),
    "a label for each sequence": ({"data": (X, Y[:, 0])}, r"expected class labels of shape \(12, 5\)"),
    "labels outside the vocabulary": ({"data": (X, Y + 1)}, "expected class labels from 0 to 5, got 6"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input(changes, message, as_for_users):
    given = {"data": (X, Y), "batch_size": 6} | changes
    with pytest.raises((ValueError, TypeError), match=message):
        fnn.fit(GPT, fnn.softmax_cross_entropy, fnn.sgd(0.1), epochs=1, key=KEY, **given)


def test_tokens_are_checked_before_a_prediction(as_for_users):
    params, state = jax.eval_shape(GPT.init, KEY)
    for call in (
        lambda x: fnn.predict(GPT, params, state, x),
        lambda x: fnn.evaluate(GPT, fnn.softmax_cross_entropy, params, state, (x, Y)),
        lambda x: fnn.check_model(GPT, fnn.softmax_cross_entropy, (x, Y)),
    ):
        with pytest.raises(ValueError, match=r"layers\[0\]: embedding\(6, 8\): expected tokens from 0 to 5, got 6"):
            call(X + 1)
