"""Every experiment checks its model's gradients before it trains. The parts that train nothing are named here."""

import jax
import pytest

import funcnn as fnn
from experiments.harness import experiment as experiment_module
from experiments.harness.experiment import Settings, run_part
from experiments.harness.topics import load, topic_names

TRAIN_NOTHING = {
    "chapter": set(range(10)) - {4},
    "activations": {0, 1, 3},
    "backprop": {2},
    "optimizers": {0, 1, 2},
    "classification_loss": {0},
    "softmax": {0},
    "convolution": {0},
    "recurrent": {0},
    "attention": {0},
}
"""By index: computations without training, and walks over surfaces that aren't networks."""


class CheckedError(Exception):
    """Raised instead of a check."""


class TrainedError(Exception):
    """Raised instead of training."""


@pytest.mark.parametrize("name", topic_names())
def test_nothing_is_trained_before_its_gradients_are_checked(name, monkeypatch):
    def check(*given, **settings):
        raise CheckedError

    def train(*given, **settings):
        raise TrainedError

    monkeypatch.setattr(experiment_module, "_CHECKED_MODELS", set())
    monkeypatch.setattr(fnn, "check_model", check)
    for trainer in ("train", "fit", "train_ensemble"):
        monkeypatch.setattr(fnn, trainer, train)
    experiment = load(name)
    for place, part in enumerate(experiment.parts):
        if place not in TRAIN_NOTHING.get(name, ()):
            with pytest.raises(CheckedError), jax.numpy_dtype_promotion("standard"):
                run_part(experiment, part, Settings(seeds=2))
