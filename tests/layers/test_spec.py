"""A layer's spec is read everywhere: initializers, dead units, names, settings, summaries, checks and checkpoints."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.health import model_facts, monitored_value_and_grad
from funcnn.layers.traversal import layer_names, leaf_layers, map_layers, spec_of
from funcnn.types import Structure
from tests.cases import KEY, LAYERS, MODELS, WIDEST, named

LECUN = jax.nn.initializers.lecun_normal()
SCALE, ALPHA = 1.0507009873554805, 1.6732632423543772


def selu_forward(z):
    below = jnp.where(z > 0, jnp.zeros_like(z), z)
    a = SCALE * jnp.where(z > 0, z, ALPHA * jnp.expm1(below))
    return a, a


def selu_backward(a, da):
    return da * jnp.where(a > 0, jnp.full_like(a, SCALE), a + SCALE * ALPHA)


SELU = fnn.activation_layer(
    selu_forward,
    selu_backward,
    fnn.LayerSpec(
        "selu",
        settings=(("scale", SCALE),),
        kernel_init=LECUN,
        units="rectifying",
        output_range=(-SCALE * ALPHA, np.inf),
    ),
)
"""The example of CONTRIBUTING.md, with a setting."""
X = jax.random.normal(KEY, (6, 3), WIDEST)
BATCH = (X, jnp.array([0, 1, 2, 0, 1, 2]))


def test_a_layer_of_ones_own_chooses_the_initializer_in_front_of_it():
    model = fnn.mlp((3, 4, 2), SELU)
    settings = dict(model.spec.parts[0].spec.settings)
    assert settings["kernel_init"] is LECUN
    key = jax.random.split(KEY, 3)[0]
    np.testing.assert_array_equal(model.init(KEY)[0][0].kernel, LECUN(key, (3, 4)))


def test_its_dead_units_and_its_range_are_known_to_the_monitor():
    model = fnn.serial(fnn.linear(3, 2), SELU, fnn.linear(2, 3))
    params, state = model.init(KEY)
    params = (params[0]._replace(bias=jnp.array([-1e3, 1.0], WIDEST)), *params[1:])
    _, _, measures = jax.jit(monitored_value_and_grad(model, fnn.softmax_cross_entropy))(params, state, BATCH)
    assert measures.dead.tolist() == [0.0, 0.5, 0.0]
    facts = model_facts(model, 6).layers[1]
    assert (facts.name, facts.units, facts.lowest) == ("layers[1] selu", "rectifying", -SCALE * ALPHA)


def test_its_name_and_settings_are_everywhere():
    model = fnn.mlp((3, 4, 3), SELU)
    assert "selu(scale=1.0507009873554805)" in str(model)
    assert layer_names(model)[1] == "layers[1] selu"
    assert fnn.summarize(model, (6, 3)).rows[1].name == "layers[1] selu"
    report = fnn.check_model(model, fnn.softmax_cross_entropy, BATCH)
    assert report.ok
    assert "layers[1] selu: dx" in [step.path for step in report.steps]


def test_a_plain_layer_without_a_spec_works():
    plain = fnn.Layer(SELU.init, SELU.forward, SELU.backward)
    assert (repr(plain), spec_of(plain).parts) == ("layer", ())
    assert fnn.check_layer(fnn.serial(fnn.linear(3, 2), plain), X).ok
    trained = fnn.fit(
        fnn.mlp((3, 4, 3), plain), fnn.softmax_cross_entropy, fnn.sgd(0.1), BATCH, epochs=1, key=KEY, monitor=True
    )
    assert trained.history.health.record.names[1] == "layers[1] layer"


@pytest.mark.parametrize(**named([*LAYERS, *MODELS]))
def test_the_text_of_a_layer_has_settings_and_no_addresses(case):
    text = str(case.layer)
    assert text == repr(case.layer)
    assert " at 0x" not in text
    assert "partial" not in text
    assert all(f"{name}=" in text for name, _ in spec_of(case.layer).settings)
    assert all(spec_of(part).name in text for part in spec_of(case.layer).parts)


def test_the_text_of_a_model_is_a_tree():
    model = fnn.serial(fnn.linear(2, 3), fnn.repeat(fnn.skip(fnn.leaky_relu(0.1)), 2), fnn.mixed_precision(fnn.relu))
    assert str(model) == (
        "serial(\n"
        "  linear(in_features=2, out_features=3, kernel_init=xavier),\n"
        "  repeat(\n"
        "    skip(\n"
        "      leaky_relu(alpha=0.1),\n"
        "      identity,\n"
        "    ),\n"
        "    n=2,\n"
        "  ),\n"
        "  mixed_precision(\n"
        "    relu,\n"
        "    compute_dtype=bfloat16,\n"
        "  ),\n"
        ")"
    )
    assert (str(fnn.softmax_cross_entropy), str(fnn.Loss(len, len))) == ("softmax_cross_entropy", "loss")


def test_wrappers_are_looked_into():
    block = fnn.recompute(fnn.serial(fnn.linear(3, 3), fnn.mixed_precision(fnn.linear(3, 3)), fnn.tanh))
    assert layer_names(fnn.serial(block, fnn.linear(3, 3))) == (
        "layers[0].recompute.layers[0] linear",
        "layers[0].recompute.layers[1].mixed_precision linear",
        "layers[0].recompute.layers[2] tanh",
        "layers[1] linear",
    )
    assert map_layers(lambda leaf: leaf, block) == block
    model = fnn.repeat(block, 2)
    params, state = model.init(KEY)
    step = jax.jit(monitored_value_and_grad(model, fnn.mean_squared_error))
    _, grads, measures = step(params, state, (X, X))
    assert jax.tree.structure(grads) == jax.tree.structure(params)
    assert measures.spread.shape == (len(leaf_layers(model)),) == (6,)
    assert (np.asarray(measures.cotangent) > 0).all()


@pytest.mark.parametrize("wrap", [fnn.recompute, fnn.mixed_precision])
def test_a_wrong_layer_inside_a_combinator_is_named(wrap):
    wrong = fnn.linear(3, 3)._replace(backward=lambda kept, dy: fnn.linear_backward(kept, 2 * dy))
    model = fnn.serial(fnn.tanh, wrap(wrong), fnn.linear(3, 3))
    report = fnn.check_model(model, fnn.softmax_cross_entropy, BATCH)
    first = next(step for step in report.steps if not step.ok)
    assert first.path.startswith("layers[1].")
    assert " linear: d" in first.path


@pytest.mark.thorough
def test_a_combinator_that_is_wrong_itself_is_named_beside_another_wrong_layer():
    skip = fnn.skip(fnn.linear(3, 3))

    def three_times(residuals, dy):
        dparams, dx = skip.backward(residuals, dy)
        return dparams, 3 * dx

    wrong = fnn.linear(3, 3)._replace(backward=lambda kept, dy: fnn.linear_backward(kept, 2 * dy))
    model = fnn.serial(fnn.tanh, skip._replace(backward=three_times), fnn.serial(wrong), fnn.tanh)
    report = fnn.check_model(model, fnn.softmax_cross_entropy, BATCH)
    places = ["layers[2].layers[0] linear"] * 3 + ["layers[1] skip"]
    assert [step.path.split(": ")[0] for step in report.steps if not step.ok] == places


@functools.cache
def branches(*layers):
    """y = f₁(x) + f₂(x) + …, a combinator of one's own."""

    def init(key):
        keys = jax.random.split(key, len(layers))
        return tuple(zip(*(layer.init(part) for layer, part in zip(layers, keys, strict=True)), strict=True))

    def forward(params, state, x, *, train, key=None):
        keys = [None] * len(layers) if key is None else jax.random.split(key, len(layers))
        found = [
            layer.forward(*trees, x, train=train, key=part)
            for layer, part, *trees in zip(layers, keys, params, state, strict=True)
        ]
        ys, states, residuals = zip(*found, strict=True)
        return sum(ys[1:], ys[0]), states, residuals

    def backward(residuals, dy):
        found = [layer.backward(kept, dy) for layer, kept in zip(layers, residuals, strict=True)]
        gradients, each_dx = zip(*found, strict=True)
        return gradients, sum(each_dx[1:], each_dx[0])

    places = tuple(f"branch[{number}]" for number in range(len(layers)))
    return fnn.Layer(
        init, forward, backward, fnn.LayerSpec("branches", structure=Structure(branches, layers, places, adds=True))
    )


def test_a_combinator_of_ones_own_is_walked_as_the_others_are():
    wrong = fnn.linear(3, 3)._replace(backward=lambda kept, dy: fnn.linear_backward(kept, 2 * dy))
    model = fnn.repeat(fnn.serial(branches(fnn.linear(3, 3), fnn.dropout(0.5), SELU), fnn.tanh), 2)
    names = [f"branch[{number}] {name}" for number, name in enumerate(("linear", "dropout", "selu"))]
    first = [f"repeat[0].layers[0].{name}" for name in names]
    assert [*layer_names(model)[:4]] == [*first, "repeat[0].layers[1] tanh"]
    assert map_layers(lambda leaf: leaf, model) == model
    rows = fnn.summarize(model, (6, 3)).rows
    assert [row.name for row in rows[:4]] == [*first, "repeat[0].layers[0] branches"]
    assert rows[3].forward_flops == rows[3].backward_flops == 2 * 6 * 3
    assert fnn.check_model(model, fnn.mean_squared_error, (X, X), key=KEY).ok
    mixed = fnn.serial(fnn.tanh, branches(fnn.linear(3, 3), wrong, SELU))
    report = fnn.check_model(mixed, fnn.softmax_cross_entropy, BATCH)
    assert {step.path.split(": ")[0] for step in report.steps if not step.ok} == {"layers[1].branch[1] linear"}
    _, grads, measures = jax.jit(monitored_value_and_grad(model, fnn.mean_squared_error))(
        *model.init(KEY), (X, X), key=KEY
    )
    assert jax.tree.structure(grads) == jax.tree.structure(model.init(KEY)[0])
    assert measures.spread.shape == (8,)


def test_a_structure_that_does_not_describe_the_forward_is_refused():
    def forward(params, state, x, *, train, key=None):
        y, state, kept = summed.forward(params, state, x, train=train, key=key)
        return y / 2, state, kept

    @functools.cache
    def averaged(*layers):
        return fnn.Layer(
            summed.init, forward, lambda kept, dy: summed.backward(kept, dy / 2),
            fnn.LayerSpec("averaged", structure=Structure(averaged, layers, ("a", "b"), adds=True)),
        )  # fmt: skip

    parts = fnn.linear(3, 3), fnn.tanh
    summed = branches(*parts)
    layer = averaged(*parts)
    with pytest.raises(ValueError, match="averaged: expected a forward that combines its parts as its Structure says"):
        fnn.check_model(fnn.serial(layer), fnn.mean_squared_error, (X, X))
    whole = layer._replace(spec=fnn.LayerSpec("averaged"))
    assert fnn.check_model(fnn.serial(whole), fnn.mean_squared_error, (X, X)).ok


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trees": "stack"}, r"Structure\(trees\): expected 'entries', 'stacked' or 'same', got 'stack'"),
        ({"places": ("a",)}, r"Structure\(places\): expected a different name for each of 2 parts, .*got \('a',\)"),
        ({"places": ("a", "a")}, r"Structure\(places\): expected a different name for each"),
        ({"trees": "same"}, r"Structure\(places\): expected a different name for each of 2 parts"),
        ({"parts": (fnn.relu,), "places": ("a",), "ties_last": True}, r"Structure\(ties_last\): expected False"),
    ],
)
def test_a_structure_of_another_form_is_refused(fields, message, as_for_users):
    structure = Structure(branches, (fnn.relu, fnn.tanh), ("a", "b"))._replace(**fields)
    with pytest.raises(ValueError, match=message):
        fnn.LayerSpec("branches", structure=structure)


def test_a_layer_with_a_forward_of_its_own_is_a_leaf():
    model = fnn.serial(fnn.linear(3, 3), fnn.tanh)
    scaled = model._replace(forward=lambda *args, **modes: model.forward(*args, **modes))
    assert layer_names(scaled) == ("serial",)
    params, state = model.init(KEY)
    step = jax.jit(monitored_value_and_grad(scaled, fnn.mean_squared_error))
    plain = jax.jit(fnn.manual_value_and_grad(scaled, fnn.mean_squared_error))
    assert step(params, state, (X, X))[0][0] == plain(params, state, (X, X))[0][0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, r"LayerSpec\(name\): expected a string"),
        ({"settings": {"scale": 2}}, r"LayerSpec\(settings\): expected a tuple of pairs, got \{'scale': 2\}"),
        ({"structure": (fnn.relu,)}, r"LayerSpec\(structure\): expected Structure"),
        ({"units": "rectified"}, r"LayerSpec\(units\): expected 'saturating', 'rectifying' or None, got 'rectified'"),
        ({"output_range": (0,)}, r"LayerSpec\(output_range\): expected the lowest and the highest value, got \(0,\)"),
    ],
)
def test_a_spec_of_another_form_is_refused(fields, message, as_for_users):
    with pytest.raises((TypeError, ValueError), match=message):
        fnn.LayerSpec(**fields)
