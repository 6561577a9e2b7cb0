"""A small healthy run gives no finding; with one thing broken it gives the right one, with its layer and figures."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnn as fnn
from funcnn.health import (
    HealthRecord,
    Kind,
    diagnose_health,
    health_report,
    input_facts,
    model_facts,
    monitored_value_and_grad,
    target_facts,
    update_ratios,
)
from funcnn.health.rise import warn_of_rise
from funcnn.layers.traversal import layer_names
from tests.cases import WIDEST

STEPS, EVERY, BATCH = 200, 10, 32
X = jax.random.normal(jax.random.key(0), (128, 2), WIDEST)
Y = (X[:, :1] * X[:, 1:] > 0).astype(WIDEST)
COINS = jax.random.bernoulli(jax.random.key(1), shape=(128, 1)).astype(WIDEST)
RELU, TANH = fnn.mlp((2, 32, 32, 32, 1), fnn.relu), fnn.mlp((2, 32, 32, 32, 1), fnn.tanh)
SIGMOID_TWICE = fnn.mlp((2, 32, 32, 32, 1), fnn.tanh, fnn.sigmoid)
LOSS = fnn.sigmoid_cross_entropy


@partial(jax.jit, static_argnames="model")
def trained(params, x, y, rate, *, model):
    optimizer, value_and_grad = fnn.momentum(rate), monitored_value_and_grad(model, LOSS)
    _, state = model.init(jax.random.key(0))

    def step(carry, number):
        params, opt_state = carry
        rows = (number * BATCH + jnp.arange(BATCH)) % len(x)
        (value, _), gradients, measures = value_and_grad(params, state, (x[rows], y[rows]))
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        figures = (value, measures, update_ratios(model, updates, params))
        return (optax.apply_updates(params, updates), opt_state), figures

    return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(STEPS))[1]


def run(model, change=None, x=X, y=Y, rate=0.1, validation=()):
    """The record of a run from changed initial parameters, and its facts."""
    params, _ = model.init(jax.random.key(2))
    losses, *watched = trained(change(params) if change else params, x, y, jnp.asarray(rate, WIDEST), model=model)
    measures, ratios = jax.tree.map(lambda figures: figures[::EVERY], watched)
    record = HealthRecord(
        layer_names(model), np.arange(0, STEPS, EVERY), measures, ratios, losses, np.asarray(validation),
        input_facts(x), target_facts(y, LOSS),
    )  # fmt: skip
    return record, model_facts(model, BATCH)


def kernels(factor):
    return lambda params: tuple(p and p._replace(kernel=factor * p.kernel) for p in params)


def bias_of_second(value):
    return lambda params: (*params[:2], params[2]._replace(bias=jnp.full_like(params[2].bias, value)), *params[3:])


def kernel_of_third(factor):
    return lambda params: (*params[:4], params[4]._replace(kernel=factor * params[4].kernel), *params[5:])


HEALTHY = {"relu": (RELU, {}), "tanh": (TANH, {})}
SICK: dict[Kind, list] = {
    "vanishing gradients": [(TANH, {"change": kernels(0.02)}, None)],
    "exploding gradients": [
        (RELU, {"change": kernels(8)}, None),
        (RELU, {"change": kernel_of_third(200)}, "layers[4] linear"),
    ],
    "dead units": [(RELU, {"change": bias_of_second(-30)}, "layers[3] relu")],
    "saturation": [(TANH, {"change": bias_of_second(30)}, "layers[3] tanh")],
    "learning rate too high": [(RELU, {"rate": 10.0}, None)],
    "learning rate too low": [(RELU, {"rate": 1e-5}, None)],
    "unscaled input": [
        (RELU, {"x": 1000 * X}, "layers[0] linear"),
        (TANH, {"x": X + 100}, "layers[0] linear"),
        (RELU, {"x": X / 1000}, "layers[0] linear"),
    ],
    "loss doesn't fall": [(TANH, {"y": COINS}, None)],
    "labels that don't fit the loss": [(SIGMOID_TWICE, {}, "layers[7] sigmoid")],
}


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_has_no_finding(name):
    model, options = HEALTHY[name]
    report = health_report(*run(model, **options))
    assert report.findings == ()
    assert report.ok
    assert str(report).startswith("Nothing wrong was found in 200 steps: the loss ended at 0.")


@pytest.mark.parametrize("kind", SICK)
def test_a_run_with_one_thing_broken_has_the_right_finding(kind):
    for model, options, layer in SICK[kind]:
        report = health_report(*run(model, **options))
        found = [finding for finding in report.findings if finding.kind == kind]
        assert len(found) == 1, report.findings
        assert not report.ok
        assert found[0].since_step in range(STEPS)
        assert found[0].remedy not in found[0].sentence
        if kind != "labels that don't fit the loss":
            assert any(letter.isdigit() for letter in found[0].sentence)
        if layer is not None:
            assert found[0].layer == layer
        assert kind in str(report)
        assert max(map(len, str(report).splitlines())) < 120


def changed(record, steps=None, **measures):
    """The record with other measures at its sampled steps, each a function of the old one."""
    new = {name: change(np.array(getattr(record.measures, name))) for name, change in measures.items()}
    return record._replace(measures=record.measures._replace(**new))


def failed(model, batch_size=BATCH, losses=None):
    """A run that ends where a constant prediction is; its measures are usual."""
    record, facts = run(model, y=COINS, rate=0.01)
    losses = np.full(STEPS, record.target.constant_loss) if losses is None else losses
    return record._replace(step_losses=losses), facts._replace(batch_size=batch_size)


def test_parameters_that_decay_to_zero_explain_the_run_and_stand_for_its_consequences():
    record, facts = failed(RELU)
    shrinking = np.geomspace(1, 1e-6, len(record.steps))[:, None]
    decayed = changed(record, parameter_norm=lambda norm: norm[:1] * shrinking, relative_cotangent=lambda g: 1e-6 * g)
    (finding,) = diagnose_health(decayed, facts)
    assert finding.kind == "loss doesn't fall"
    assert "decay wins over the gradients" in finding.sentence
    assert "weight decay" in finding.remedy
    is_spared = np.arange(len(record.names)) == 6
    one_stays = changed(decayed, parameter_norm=lambda norm: np.where(is_spared, norm[:1], norm))
    layers = int((np.asarray(record.measures.parameter_norm)[0] != 0).sum())
    (finding,) = diagnose_health(one_stays, facts)
    assert f"go to 0 in {layers - 1} of {layers} layers" in finding.sentence
    most_stay = changed(decayed, parameter_norm=lambda norm: np.where(is_spared, norm, norm[:1]))
    assert "decay" not in " ".join(finding.sentence for finding in diagnose_health(most_stay, facts))


def test_a_start_at_zero_is_named_for_several_layers_alone():
    for model, is_named in ((RELU, True), (fnn.mlp((2, 1)), False)):
        record, facts = failed(model)
        after = np.arange(len(record.steps))[:, None] > 0
        at_zero = changed(
            record,
            parameter_norm=lambda norm, after=after: np.where(after, norm, 0),
            cotangent=lambda dy, after=after: np.where(after | (np.arange(dy.shape[1]) == dy.shape[1] - 1), dy, 0),
        )
        found = diagnose_health(at_zero, facts)
        assert any("All parameters are 0 at the first step" in finding.sentence for finding in found) is is_named


@pytest.mark.parametrize(("rate", "falls", "is_named"), [(0.95, True, True), (0.5, True, False), (0.95, False, False)])
def test_a_loss_that_falls_slowly_under_heavy_dropout_is_that_of_a_thinned_network(rate, falls, is_named):
    record, facts = failed(TANH)
    losses = record.target.constant_loss * (np.linspace(1.2, 0.95, STEPS) if falls else np.ones(STEPS))
    layers = (*facts.layers[:-1], facts.layers[-1]._replace(drop_rate=rate))
    found = diagnose_health(record._replace(step_losses=losses), facts._replace(layers=layers))
    assert any("thinned network" in finding.sentence for finding in found) is is_named
    assert any("rows of x and y" in finding.remedy for finding in found) is not is_named


def test_dropout_in_several_layers_adds_up():
    record, facts = failed(TANH)
    record = record._replace(step_losses=record.target.constant_loss * np.linspace(1.2, 0.95, STEPS))
    for rates, is_named in (((0.6, 0.6), True), ((0.3, 0.3), False)):
        thinned = [layer._replace(drop_rate=rate) for layer, rate in zip(facts.layers[:2], rates, strict=True)]
        found = diagnose_health(record, facts._replace(layers=(*thinned, *facts.layers[2:])))
        assert any("2 layers drop entries in training, and 84%" in finding.sentence for finding in found) is is_named


def test_units_with_equal_weights_are_named_where_they_stay_equal_and_are_hidden():
    record, facts = failed(TANH)
    rows = np.arange(len(facts.layers))
    for equal, is_named in (
        (lambda between: 0 * between, True),
        (lambda between: np.where(np.arange(len(between))[:, None] == 0, 0, between), False),
        (lambda between: np.where(rows == rows[-1], 0, between), False),
    ):
        found = diagnose_health(changed(record, between_units=equal), facts)
        named = [finding for finding in found if "all alike at the first step and stay alike" in finding.sentence]
        assert bool(named) is is_named
        assert all(finding.layer == "layers[0] linear" for finding in named)


def test_a_layer_that_passes_no_gradient_at_any_step_is_named_as_a_normalization_of_one_entry():
    record, facts = failed(TANH)

    def blocked(cotangent):
        return np.where(np.arange(cotangent.shape[1]) < 2, 0, cotangent)

    found = diagnose_health(changed(record, cotangent=blocked, relative_cotangent=blocked), facts)
    (finding,) = [finding for finding in found if finding.kind == "vanishing gradients"]
    assert finding.layer == "layers[2] linear"
    assert "passes on exactly 0 at every step" in finding.sentence


FALLING = np.geomspace(3, 0.1, 100)
NOISY = np.random.default_rng(0).exponential(size=400)


@pytest.mark.parametrize(
    ("losses", "rose"),
    [
        (FALLING[::-1], True),
        (np.full(100, np.log(10)) * np.linspace(1, 1.2, 100), True),
        (np.array([2.3, 4e5]), True),
        (np.concatenate([FALLING, [np.nan], FALLING[::-1] * 3]), True),
        (-FALLING, True),
        (FALLING, False),
        (NOISY, False),
        (np.array([0.5, 0.52]), False),
        (np.array([1.13, 2.09, 1.0, 0.87, 1.87, 0.81, 1.67, 0.28, 1.42]), False),
        (np.array([1.0]), False),
        (np.concatenate([FALLING, FALLING[::-1]]), False),
        (-FALLING[::-1], False),
    ],
)
def test_a_loss_that_rose_is_a_warning(losses, rose):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_rise("fit", losses)
    assert [str(warning.message).startswith("fit: the loss rose, from ") for warning in caught] == [True] * rose


def test_batch_norm_of_a_single_entry_is_named_and_of_more_is_not():
    model = fnn.serial(fnn.linear(2, 4), fnn.batch_norm(4), fnn.relu, fnn.linear(4, 1))
    for size, positions, is_named in ((1, 1, True), (1, 9, False), (2, 1, False)):
        record, facts = failed(model, batch_size=size)
        found = diagnose_health(record._replace(input=record.input._replace(positions=positions)), facts)
        named = [finding for finding in found if "takes for its own mean" in finding.sentence]
        assert bool(named) is is_named
        assert all(finding.layer == "layers[1] batch_norm" for finding in named)


def test_steps_that_kill_units_come_before_the_dead_units():
    record, facts = failed(RELU, losses=np.geomspace(1e9, 1e3, STEPS))
    killed = changed(record, dead=lambda dead: np.where(np.arange(len(dead))[:, None] > 0, 1.0, 0 * dead))
    ratios = np.full_like(np.asarray(record.update_ratios), 1e-9)
    ratios[0] = 1e5
    kinds = [finding.kind for finding in diagnose_health(killed._replace(update_ratios=ratios), facts)]
    assert kinds[:2] == ["learning rate too high", "dead units"]


def test_overfitting_is_found():
    learned, facts = run(TANH, validation=[0.9, 0.1])
    by_heart = learned._replace(validation_losses=np.array([0.9, 0.8]))
    assert diagnose_health(learned, facts) == ()
    (finding,) = diagnose_health(by_heart, facts)
    assert finding.kind == "loss doesn't fall"
    assert "overfits" in finding.sentence


def test_a_loss_that_is_no_number_is_a_finding_whatever_the_figures():
    record, facts = run(TANH)
    broken = record._replace(step_losses=np.where(np.arange(STEPS) < 50, record.step_losses, np.nan))
    kinds = [finding.kind for finding in diagnose_health(broken, facts)]
    assert "loss doesn't fall" in kinds


def test_records_that_do_not_fit_are_refused():
    record, facts = run(TANH)
    with pytest.raises(ValueError, match=r"diagnose_health\(record\): expected the layers of the facts"):
        diagnose_health(record._replace(names=("linear",)), facts)
    with pytest.raises(ValueError, match="at least one step"):
        diagnose_health(record._replace(steps=np.array([], int)), facts)
