"""Handwritten digits learned by hand-written backpropagation: scikit-learn's 1,797 images of 8 × 8, 64-128-64-10.

``python -m experiments.digits`` trains the network twice from one start, by the gradients written by hand and by
``jax.grad``, compares them parameter by parameter at the first and the last step, and gives the test accuracy of ten
networks trained at once.
"""

from dataclasses import dataclass
from typing import Any

import tyro
from sklearn.datasets import load_digits

from experiments import classification
from experiments.classification import ClassifierSettings
from experiments.console import begin
from experiments.distributed import join

SIZES = (64, 128, 64, 10)


@dataclass(frozen=True, kw_only=True)
class DigitsSettings(ClassifierSettings):
    """Handwritten digits of 8 × 8 pixels, by hand and by autodiff."""

    epochs: int = 30
    """Passes over the training images."""


def run(settings: DigitsSettings) -> dict[str, Any]:
    mesh = join(settings)
    begin("Handwritten digits", settings)
    x, y = load_digits(return_X_y=True)
    images = classification.split_and_scale("digits", x, y, settings.seed, side=8)
    return classification.run("Digits", SIZES, images, settings, mesh)


if __name__ == "__main__":
    run(tyro.cli(DigitsSettings, prog="python -m experiments.digits"))
