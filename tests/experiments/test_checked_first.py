"""Every experiment has its model's gradients checked before it trains; the parts that train nothing are named here."""

import jax
import pytest

import funcnn as fnn
from experiments import experiment as experiment_module
from experiments.__main__ import NAMES
from experiments.experiment import Settings, measured
from experiments.runner import load

TRAIN_NOTHING = set()


class CheckedError(Exception):
    """Raised in the place of a check."""


class TrainedError(Exception):
    """Raised in the place of a training."""


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_trained_before_its_gradients_are_checked(name, monkeypatch):
    def check(*given, **settings):
        raise CheckedError

    def train(*given, **settings):
        raise TrainedError

    monkeypatch.setattr(experiment_module, "_SEEN_RIGHT", set())
    monkeypatch.setattr(fnn, "check_model", check)
    for trainer in ("train", "fit", "train_ensemble"):
        monkeypatch.setattr(fnn, trainer, train)
    experiment = load(name)
    for part in experiment.parts:
        if (name, part.title) not in TRAIN_NOTHING:
            with pytest.raises(CheckedError), jax.numpy_dtype_promotion("standard"):
                measured(experiment, part, Settings(seeds=2))
