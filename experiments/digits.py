"""Handwritten digits learned by hand-written backpropagation: scikit-learn's 1,797 images of 8 × 8, 64-128-64-10.

``python -m experiments.digits`` trains the network twice from one start, by the gradients written by hand and by
``jax.grad``, and compares them parameter by parameter; then many networks at once, for the test accuracy.
``--distributed`` shares the twins' training among processes.
"""

from experiments.harness.experiment import ExperimentResult, Settings
from experiments.harness.runner import run_command_line
from experiments.shared import data
from experiments.shared.image_classifier import Classifier, ClassifierSettings, make_experiment

DIGITS = Classifier(
    name="digits",
    order=6.2,
    title="handwritten digits",
    introduction=(
        "scikit-learn's 1,797 handwritten digits of 8 × 8 pixels, a fifth of each class kept for the test; ReLU, "
        "softmax cross-entropy, Adam. The hand-written backward pass and automatic "
        "differentiation are compared to the last digits of float64."
    ),
    load=data.digits,
    side=8,
    sizes=(64, 128, 64, 10),
    learning_rate=2e-3,
    epochs=(30, 30),
    precision="float64",
    largest_gap=1e-9,
    accuracy=0.96,
    seeds=(10, 100),
)
EXPERIMENT = make_experiment(DIGITS)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT, ClassifierSettings)
