"""An image classifier trained twice from one start, by both gradients, and from many seeds at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import funcnn as fnn
from experiments.harness.claims import Claim, Section, format_number, judge
from experiments.harness.distributed import DistributedSettings, join
from experiments.harness.experiment import GRADIENTS, Experiment, Outcome, Part, Settings, Table, checked_value_and_grad
from experiments.harness.figures import Curve, Figure, heatmap, images, labelled_images, lines
from experiments.shared.data import DataSet

BATCH_SIZE = 64
UNITS_SHOWN = 24
IMAGES_SHOWN = 24


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Settings, DistributedSettings):
    """An image classifier, on the devices of one process or of several."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A network for a data set, and the thresholds of its claims.

    Fields:
        order: as in ``Experiment``.
        side: pixels along an image's edge.
        epochs: quick and full.
        largest_gap: between a parameter trained by hand and by autodiff.
        accuracy: the least, on the test images.
    """

    name: str
    order: float
    title: str
    introduction: str
    load: Callable[[int], DataSet]
    side: int
    sizes: tuple[int, ...]
    learning_rate: float
    epochs: tuple[int, int]
    precision: Literal["float32", "float64"]
    largest_gap: float
    accuracy: float
    seeds: tuple[int, int]


class PairedTraining(NamedTuple):
    """One network trained twice from one start.

    Fields:
        trained: by whose gradients, the training.
        gaps: the largest difference of a parameter between the two after every epoch.
    """

    start: Any
    trained: dict[str, fnn.Trained]
    gaps: list[float]


def make_experiment(classifier: Classifier) -> Experiment:
    """Return the experiment on a classifier: two claims, and figures of the trained network."""
    same = Claim(
        name=f"{classifier.name}-same",
        sentence=f"Gradients by hand and by autodiff train the same network on {classifier.title}.",
        section=Section.BACKPROPAGATION,
        quantity=f"largest gap of a parameter after any epoch, {classifier.precision}",
        at_most=classifier.largest_gap, statistic="exact",
    )  # fmt: skip
    learned = Claim(
        name=f"{classifier.name}-learned",
        sentence=f"A multi-layer perceptron learns {classifier.title}: {classifier.accuracy:.0%} of new images right.",
        section=Section.WHAT if classifier.name == "digits" else Section.MLP,
        quantity="test accuracy",
        at_least=classifier.accuracy, seeds=classifier.seeds[1], quick_seeds=classifier.seeds[0],
    )  # fmt: skip
    return Experiment(
        name=classifier.name,
        order=classifier.order,
        title=f"{classifier.title[0].upper()}{classifier.title[1:]}, by hand and by autodiff",
        introduction=classifier.introduction,
        parts=(
            Part("The same network twice", (same,), lambda settings: paired_training_part(classifier, same, settings)),
            Part("Many starts", (learned,), lambda settings: seeds_part(classifier, learned, settings)),
        ),
        precision=classifier.precision,
    )


def paired_training_part(classifier: Classifier, claim: Claim, settings: Settings) -> Outcome:
    mesh = join(settings) if isinstance(settings, DistributedSettings) else None
    data = classifier.load(settings.seed)
    model = fnn.mlp(classifier.sizes)
    checked_classifier_value_and_grad(settings, classifier, data)
    twins = train_pair(classifier, model, data, settings, mesh)
    chosen = twins.trained[settings.grad]
    prediction = fnn.predict(model, chosen.params, chosen.state, data.test.x)
    confusion = np.asarray(fnn.confusion_matrix(prediction, data.test.y))
    kernels = (np.asarray(params[0].kernel) for params in (twins.start[0], chosen.params))
    return Outcome(
        (judge(claim, max(twins.gaps)),),
        (
            curves_figure(twins),
            confusion_figure(confusion),
            *mistakes_figures(np.asarray(prediction), data.test, classifier.side),
            kernel_figure(*kernels, classifier.side),
        ),
        (comparison_table(twins),),
        f"Two networks {'-'.join(map(str, classifier.sizes))} with ReLU begin with the same parameters and see the "
        f"same mini-batches of {BATCH_SIZE}, one by the backward passes of funcnn, one by jax.grad of the same "
        f"forward. After the last of {len(twins.gaps)} epochs no parameter differs by more than "
        f"{format_number(twins.gaps[-1], 2)}. {int(np.trace(confusion))} of {confusion.sum()} test images are named "
        "right.",
    )


def seeds_part(classifier: Classifier, claim: Claim, settings: Settings) -> Outcome:
    data = classifier.load(settings.seed)
    model = fnn.mlp(classifier.sizes)
    grad = checked_classifier_value_and_grad(settings, classifier, data)

    @jax.jit
    @jax.vmap
    def train_and_judge(key):
        trained = fnn.train(
            model, fnn.softmax_cross_entropy, fnn.adam(classifier.learning_rate), data.training,
            epochs=epoch_count(classifier, settings), batch_size=BATCH_SIZE, key=key, grad=grad,
        )  # fmt: skip
        prediction = fnn.predict(model, trained.params, trained.state, data.test.x)
        return fnn.accuracy(prediction, data.test.y)

    accuracies = np.asarray(train_and_judge(settings.keys_of(claim)))
    result = judge(claim, accuracies)
    text = (
        f"{result.seeds} networks, trained at once under vmap on one split: mean test accuracy "
        f"{result.estimate:.2%}, 95% interval {result.low:.2%} to {result.high:.2%}; the worst "
        f"{accuracies.min():.2%}, the best {accuracies.max():.2%}. The interval is that of the starts and the "
        "shuffling, not of the choice of images."
    )
    return Outcome((result,), text=text)


def epoch_count(classifier: Classifier, settings: Settings) -> int:
    quick, full = classifier.epochs
    return settings.steps(quick=quick, full=full)


def checked_classifier_value_and_grad(settings: Settings, classifier: Classifier, data: DataSet):
    """Return the settings' gradients after checking a narrower network of the same form on a few images."""
    inner = [min(size, 16) for size in classifier.sizes[1:-1]]
    x, y = (part[:8] for part in data.training)
    middle = x[:, x.shape[1] // 2 :][:, :16]
    return checked_value_and_grad(
        settings, fnn.mlp((16, *inner, classifier.sizes[-1])), fnn.softmax_cross_entropy, (middle, y)
    )


def train_pair(classifier: Classifier, model: fnn.Layer, data: DataSet, settings: Settings, mesh) -> PairedTraining:
    """Train with both gradients from the same start, and compare the parameters of every epoch."""
    key = jax.random.key(settings.seed)
    start = model.init(key)
    trained, visited = {}, {}
    for name, grad in GRADIENTS.items():
        visited[name] = []
        trained[name] = fnn.fit(
            model, fnn.softmax_cross_entropy, fnn.adam(classifier.learning_rate), data.training,
            epochs=epoch_count(classifier, settings), batch_size=BATCH_SIZE, key=key, grad=grad,
            params=start[0], state=start[1], validation=data.test, metrics={"accuracy": fnn.accuracy},
            callbacks=[lambda progress, kept=visited[name]: kept.append(progress.params)], mesh=mesh,
        )  # fmt: skip
    gaps = [largest_gap(*pair) for pair in zip(visited["manual"], visited["autodiff"], strict=True)]
    # On a mesh the arrays are those of all processes together; from here each works on its own copy.
    return PairedTraining(start, jax.device_get(trained), gaps)


def largest_gap(first: Any, second: Any) -> float:
    """Return the largest difference of an entry between two trees; NaN where there is one."""
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), first, second)
    return float(np.max(jax.tree.leaves(gaps)))


def comparison_table(twins: PairedTraining) -> Table:
    """Return a table of losses, accuracies and the gap at a few epochs."""
    last = len(twins.gaps) - 1
    columns = [
        twins.trained[name].history.validation[figure] for figure in ("loss", "accuracy") for name in twins.trained
    ]
    rows = [
        (epoch + 1, *(float(values[epoch]) for values in columns), twins.gaps[epoch])
        for epoch in sorted({0, last // 4, last // 2, last})
    ]
    titles = ("epoch", "test loss by hand", "by autodiff", "accuracy by hand", "by autodiff", "largest gap")
    return Table("Hand-written gradients beside autodiff", titles, tuple(rows))


def curves_figure(twins: PairedTraining) -> Figure:
    """Return a figure of losses, accuracy and the gap between the two trainings' parameters, by epoch."""
    epochs = np.arange(1, len(twins.gaps) + 1)
    losses, accuracies = {}, {}
    for name, words in (("manual", "by hand"), ("autodiff", "by jax.grad")):
        history = twins.trained[name].history
        losses |= {f"test, {words}": Curve(epochs, history.validation["loss"]),
                   f"training, {words}": Curve(epochs, history.loss)}  # fmt: skip
        accuracies[words] = Curve(epochs, history.validation["accuracy"])
    # Two runs that are the same to the last bit have no place on a logarithmic axis: draw them at the smallest gap.
    gaps = np.maximum(twins.gaps, float(np.finfo(float).eps) / 8)
    accuracy = float(accuracies["by hand"].y[-1])
    return Figure(
        "Loss, test accuracy and gap of the parameters by epoch, by hand and by autodiff",
        "Losses and test accuracy by epoch: the two trainings' curves coincide and end at a test accuracy of "
        f"{accuracy:.2%}. The largest gap of a parameter stays below {format_number(max(twins.gaps), 2)}.",
        (
            lines(losses, x="epoch", y="cross-entropy (nats)", log="y", dashed=[one for one in losses if "jax" in one]),
            lines(accuracies, x="epoch", y="test accuracy", dashed=["by jax.grad"]),
            lines({"gap": Curve(epochs, gaps)}, x="epoch", y="largest gap of a parameter", log="y"),
        ),
    )


def confusion_figure(confusion: np.ndarray) -> Figure:
    """Return a heatmap of the mistakes: true classes in rows, predicted ones in columns, right ones without colour."""
    right, total = int(np.trace(confusion)), int(confusion.sum())
    diagonal = np.eye(len(confusion), dtype=bool)
    mistakes = np.where(diagonal, 0, confusion)
    most = np.unravel_index(mistakes.argmax(), mistakes.shape)
    classes = range(len(confusion))
    return Figure(
        f"The mistakes on {total - right} of {total} test images",
        f"A grid of the mistakes: rows are the true classes, columns what they were taken for. The most frequent: "
        f"{most[0]} taken for {most[1]}, {mistakes.max()} times.",
        (
            heatmap(
                confusion,
                rows=classes,
                columns=classes,
                x="taken for",
                y="truly",
                value="mistakes",
                number=lambda count: f"{count:.0f}" if count else "",
                plain=diagonal,
            ),
        ),
    )


def mistakes_figures(prediction: np.ndarray, test: fnn.Batch, side: int) -> tuple[Figure, ...]:
    """Return a figure of the first mistaken test images, with what they are and what they were taken for; or none."""
    answers, truth = prediction.argmax(axis=1), np.asarray(test.y)
    wrong = np.flatnonzero(answers != truth)
    if not wrong.size:
        return ()
    shown = wrong[:IMAGES_SHOWN]
    labels = [f"{truth[place]} → {answers[place]}" for place in shown]
    pictures = np.asarray(test.x)[shown].reshape(-1, side, side)
    return (
        Figure(
            f"{len(shown)} of the {len(wrong)} mistaken images",
            f"Handwritten digits that the network named wrong, from the first test image on: {', '.join(labels)}.",
            (labelled_images(pictures, labels),),
            "Below each image: what it is → what it was taken for.",
        ),
    )


def kernel_figure(start: np.ndarray, kernel: np.ndarray, side: int) -> Figure:
    """Return a figure of the first layer's weights as images, and of the change by training."""
    added = kernel - start
    most_changed = np.argsort(-np.linalg.norm(added, axis=0))[:UNITS_SHOWN]
    panels = (
        images(np.moveaxis(part[:, most_changed].reshape(side, side, -1), -1, 0), subtitle=subtitle, columns=6)
        for part, subtitle in ((kernel, "their weights"), (added, "what training added to them"))
    )
    return Figure(
        f"The kernels of {len(most_changed)} units of the first layer",
        f"The kernels of the {len(most_changed)} units that training changed most, as images of {side} by {side} "
        "pixels, beside what training added to their random start: blots and strokes rather than noise.",
        tuple(panels),
        "Each image by its own scale: orange for positive weights, violet for negative ones.",
    )
