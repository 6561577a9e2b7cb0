"""Findings about targets: those that a loss or an output layer can't meet are named, and those that fit are not."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnn as fnn
from funcnn.health import HealthRecord, LayerMeasures, diagnose_health, input_facts, model_facts, target_facts
from funcnn.layers.traversal import layer_names
from tests.cases import WIDEST

BATCH = 32


def facts_of(y, loss, model):
    """The findings of a run that learned nothing, whose figures are all usual."""
    facts = model_facts(model, BATCH)
    usual = np.full((20, len(facts.layers)), 0.01)
    measures = LayerMeasures(*[usual] * len(LayerMeasures._fields))._replace(relative_cotangent=100 * usual)
    target = target_facts(y, loss)
    losses = np.full(200, target.constant_loss if np.isfinite(target.constant_loss) else 1.0)
    record = HealthRecord(
        layer_names(model), np.arange(20), measures, usual, losses, np.array([]), input_facts(np.eye(2)), target
    )
    return [finding for finding in diagnose_health(record, facts) if finding.kind != "loss doesn't fall"]


def net(output, outputs=1):
    return fnn.mlp((2, outputs), output=output)


CLASSES = jnp.arange(6) % 3
VALUES = jnp.linspace(-2.0, 2.0, 6)[:, None]
BITS = (CLASSES[:, None] > 0).astype(WIDEST)


@pytest.mark.parametrize(
    ("y", "loss", "model", "words"),
    [
        (VALUES, fnn.mean_squared_error, net(fnn.sigmoid), "stays in [0, 1]"),
        (VALUES, fnn.mean_squared_error, net(fnn.tanh), "stays in [-1, 1]"),
        (VALUES, fnn.mean_squared_error, net(fnn.relu), "stays in [0, inf]"),
        (2 * BITS - 1, fnn.sigmoid_cross_entropy, net(fnn.identity), "from -1 to 1"),
        (BITS, fnn.sigmoid_cross_entropy, net(fnn.relu), "no probability is below ½"),
        (CLASSES, fnn.softmax_cross_entropy, net(fnn.relu, 3), "a class cannot go below 0"),
        (CLASSES, fnn.softmax_cross_entropy, net(fnn.softmax, 3), "contains the output layer already"),
        (BITS, fnn.mean_squared_error, net(fnn.softmax), "1 whatever the input"),
        (jnp.zeros(6, int), fnn.softmax_cross_entropy, net(fnn.identity, 2), "the same"),
        (jnp.hstack([BITS, BITS, 1 - BITS]), fnn.softmax_cross_entropy, net(fnn.identity, 3), "sum to 1.7"),
        (100 + VALUES, fnn.mean_squared_error, net(fnn.identity), "root mean square is 100"),
        (CLASSES[:, None].astype(WIDEST), fnn.mean_squared_error, net(fnn.identity), "whole numbers from 0 to 2"),
    ],
)
def test_targets_that_can_not_be_met_are_named(y, loss, model, words):
    (finding,) = facts_of(y, loss, model)
    assert finding.kind == "labels that don't fit the loss"
    assert words in finding.sentence


@pytest.mark.parametrize(
    ("y", "loss", "model"),
    [
        (VALUES, fnn.mean_squared_error, net(fnn.identity)),
        (VALUES / 2, fnn.mean_squared_error, net(fnn.tanh)),
        (BITS, fnn.mean_squared_error, net(fnn.sigmoid)),
        (BITS, fnn.binary_cross_entropy, net(fnn.sigmoid)),
        (BITS, fnn.sigmoid_cross_entropy, net(fnn.identity)),
        (CLASSES, fnn.softmax_cross_entropy, net(fnn.identity, 3)),
        (CLASSES, fnn.categorical_cross_entropy, net(fnn.softmax, 3)),
        (jax.nn.one_hot(CLASSES, 3, dtype=WIDEST), fnn.softmax_cross_entropy, net(fnn.identity, 3)),
        (jax.nn.softmax(jnp.outer(VALUES[:, 0], jnp.arange(3.0))), fnn.softmax_cross_entropy, net(fnn.identity, 3)),
    ],
)
def test_targets_that_fit_are_not(y, loss, model):
    assert facts_of(y, loss, model) == []


def test_the_constant_loss_is_the_entropy_or_the_variance():
    assert target_facts(CLASSES, fnn.softmax_cross_entropy).constant_loss == pytest.approx(np.log(3))
    assert target_facts(BITS, fnn.sigmoid_cross_entropy).constant_loss == pytest.approx(np.log(3) - 2 / 3 * np.log(2))
    assert target_facts(VALUES, fnn.mean_squared_error).constant_loss == pytest.approx(float(VALUES.var()))
    soft = target_facts(jnp.full((6, 2), 0.5, WIDEST), fnn.softmax_cross_entropy)
    assert (soft.form, soft.lowest_loss) == ("probabilities", pytest.approx(np.log(2)))


def own_loss(loss, **changes):
    """A loss with functions of its own; without ``changes`` it has no spec."""
    functions = fnn.Loss(lambda *arguments: loss.forward(*arguments), lambda *arguments: loss.backward(*arguments))
    return functions._replace(spec=dataclasses.replace(loss.spec, **changes)) if changes else functions


def test_a_loss_without_a_spec_gets_no_findings_about_the_loss():
    assert facts_of(CLASSES, own_loss(fnn.softmax_cross_entropy), net(fnn.softmax, 3)) == []
    assert facts_of(100 + VALUES, own_loss(fnn.mean_squared_error), net(fnn.identity)) == []
    facts = target_facts(CLASSES, own_loss(fnn.softmax_cross_entropy))
    assert (facts.loss, facts.form, facts.prediction, facts.targets) == ("loss", "labels", None, None)
    assert np.isnan(facts.constant_loss)


def test_an_own_loss_with_a_spec_gets_the_findings_about_it():
    scaled = own_loss(fnn.softmax_cross_entropy, name="scaled_cross_entropy")
    (finding,) = facts_of(CLASSES, scaled, net(fnn.softmax, 3))
    assert finding.sentence.startswith("scaled_cross_entropy takes logits and contains the output layer already")
    assert target_facts(CLASSES, scaled).constant_loss == pytest.approx(np.log(3))
    (finding,) = facts_of(100 + VALUES, own_loss(fnn.mean_squared_error, name="huber"), net(fnn.identity))
    assert "root mean square is 100" in finding.sentence


def test_targets_of_any_rank_have_the_facts_of_their_rows():
    def figures(y, loss):
        facts = target_facts(y, loss)
        return facts.form, facts.balance.tolist(), facts.variance, facts.constant_loss, facts.lowest_loss

    one_hot = jax.nn.one_hot(CLASSES, 3, dtype=WIDEST)
    values = jax.random.normal(jax.random.key(3), (6, 4), WIDEST)
    for loss, rows in [
        (fnn.softmax_cross_entropy, CLASSES),
        (fnn.softmax_cross_entropy, one_hot),
        (fnn.mean_squared_error, values),
    ]:
        assert figures(rows.reshape(2, 3, *rows.shape[1:]), loss) == figures(rows, loss)


def test_labels_of_many_classes_build_no_one_hot_rows():
    labels = jnp.arange(40_000).reshape(100, 400)
    facts = target_facts(labels, fnn.softmax_cross_entropy)
    assert facts.balance.shape == (40_000,)
    assert (facts.constant_loss, facts.lowest_loss) == (pytest.approx(np.log(40_000)), 0)


@pytest.mark.parametrize(
    ("y", "loss"),
    [
        (jnp.repeat(jnp.arange(4), 16), fnn.softmax_cross_entropy),
        (jnp.repeat(jnp.eye(4), 16, axis=0), fnn.softmax_cross_entropy),
        (jnp.linspace(0.0, 1.0, 64)[:, None], fnn.mean_squared_error),
    ],
    ids=["labels", "one-hot", "values"],
)
def test_the_variance_between_sorted_batches_is_all_of_it_and_between_shuffled_ones_little(y, loss):
    shuffled = y[jax.random.permutation(jax.random.key(0), 64)]
    assert target_facts(y, loss, [16] * 4).between_batches > 0.9
    assert target_facts(shuffled, loss, [16] * 4).between_batches < 0.25
    assert target_facts(y, loss).between_batches == 0
