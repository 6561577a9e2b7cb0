"""Images into ten classes: what ``digits`` and ``mnist`` share.

The network is trained twice from one start, by the gradients written by hand and by ``jax.grad``, and compared all the
way; then ten networks are trained at once from ten starts, for an accuracy with an interval.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from matplotlib.figure import Figure
from rich.progress import Progress as ProgressBar
from scipy import stats
from sklearn.model_selection import train_test_split

import funcnn as fnn
from experiments.console import GRADIENTS, Settings, console, save, table
from experiments.distributed import DistributedSettings

BY_HAND, BY_AUTODIFF = "#1f4e79", "#c58b2a"


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(Settings, DistributedSettings):
    """What an image classifier can be told."""

    batch_size: int = 64
    """Samples a step."""
    learning_rate: float = 2e-3
    """Adam's."""
    seeds: int = 10
    """Networks trained at once for the accuracy's interval."""


class Images(NamedTuple):
    """A data set split into a part to train on and a part to judge by, features scaled to [0, 1]."""

    name: str
    training: fnn.Batch
    test: fnn.Batch
    side: int


class Twins(NamedTuple):
    """One network trained twice from one start.

    Fields:
        trained: by whose gradients, the training.
        gaps: the largest difference of a parameter between the two after every epoch.
    """

    start: Any
    trained: dict[str, fnn.Trained]
    gaps: list[float]


def split_and_scale(name: str, x: np.ndarray, y: np.ndarray, seed: int, side: int) -> Images:
    """A fifth of every class is kept for the test; the scaling is measured on the rest."""
    parts = train_test_split(x, y, test_size=0.2, stratify=y, random_state=seed)
    x_training, x_test = (jnp.asarray(part, jnp.result_type(float)) for part in parts[:2])
    y_training, y_test = (jnp.asarray(part) for part in parts[2:])
    scaling = fnn.min_max_scaler.fit(x_training)
    return Images(
        name,
        fnn.Batch(fnn.min_max_scaler.apply(scaling, x_training), y_training),
        fnn.Batch(fnn.min_max_scaler.apply(scaling, x_test), y_test),
        side,
    )


def train_twins(model: fnn.Layer, images: Images, settings: ClassifierSettings, mesh: Mesh | None) -> Twins:
    """Train with both gradients from the same start, and keep every epoch's parameters to compare."""
    key = jax.random.key(settings.seed)
    start = model.init(key)
    trained, visited = {}, {}
    with ProgressBar(console=console, transient=True) as bar:
        for name, grad in GRADIENTS.items():
            epochs = bar.add_task(f"training by {name} gradients", total=settings.epochs)
            visited[name] = []

            def on_epoch(progress, epochs=epochs, kept=visited[name]):
                kept.append(progress.params)
                bar.update(epochs, completed=progress.epoch)

            trained[name] = fnn.fit(
                model, fnn.softmax_cross_entropy, fnn.adam(settings.learning_rate), images.training,
                epochs=settings.epochs, batch_size=settings.batch_size, key=key, grad=grad,
                params=start[0], state=start[1], validation=images.test, metrics={"accuracy": fnn.accuracy},
                callbacks=[on_epoch], mesh=mesh,
            )  # fmt: skip
    gaps = [largest_gap(*pair) for pair in zip(visited["manual"], visited["autodiff"], strict=True)]
    # On a mesh the arrays are those of all processes together; from here each works on its own copy.
    return Twins(start, jax.device_get(trained), gaps)


def largest_gap(first: Any, second: Any) -> float:
    """The largest difference of an entry between two trees; NaN where there is one."""
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), first, second)
    return float(np.max(jax.tree.leaves(gaps)))


def accuracies_of_many_seeds(model: fnn.Layer, images: Images, settings: ClassifierSettings) -> np.ndarray:
    """Test accuracies of ``settings.seeds`` networks, trained at once under ``vmap`` over their keys."""

    @jax.jit
    @jax.vmap
    def train_and_judge(key):
        trained = fnn.train(
            model, fnn.softmax_cross_entropy, fnn.adam(settings.learning_rate), images.training,
            epochs=settings.epochs, batch_size=settings.batch_size, key=key, grad=settings.value_and_grad,
        )  # fmt: skip
        prediction = fnn.predict(model, trained.params, trained.state, images.test.x)
        return fnn.accuracy(prediction, images.test.y)

    with console.status(f"training {settings.seeds} networks at once"):
        return np.asarray(train_and_judge(jax.random.split(jax.random.key(settings.seed), settings.seeds)))


def interval(values: np.ndarray) -> tuple[float, float]:
    """The 95% interval of the mean, by Student's t."""
    if len(values) < 2:
        return float("nan"), float("nan")
    low, high = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
    return float(low), float(high)


def run(
    title: str, sizes: tuple[int, ...], images: Images, settings: ClassifierSettings, mesh: Mesh | None = None
) -> dict[str, Any]:
    """The whole experiment; returns its figures and prints them on the way. A mesh shares the twins' training."""
    model = fnn.mlp(sizes)
    layers = "-".join(map(str, sizes))
    console.print(
        f"\n[bold]{title}[/]: {len(images.training.x)} images to train on, {len(images.test.x)} to judge by, "
        f"{layers}, ReLU, softmax cross-entropy, Adam, mini-batches\n",
        highlight=False,
    )
    twins = train_twins(model, images, settings, mesh)
    first_batch = fnn.Batch(*(part[: settings.batch_size] for part in images.training))
    chosen = twins.trained[settings.grad]
    points = {"before the first step": twins.start, "after the last step": (chosen.params, chosen.state)}
    reports = {
        when: fnn.check_model(model, fnn.softmax_cross_entropy, first_batch, params=params, state=state)
        for when, (params, state) in points.items()
    }
    show_twins(twins, reports, settings)
    accuracies = accuracies_of_many_seeds(model, images, settings)
    low, high = interval(accuracies)
    spread = f", 95% interval {low:.2%} to {high:.2%} (worst {accuracies.min():.2%}, best {accuracies.max():.2%})"
    console.print(
        f"\nMean test accuracy over {settings.seeds} starts, one split, trained at once by {settings.grad} gradients: "
        f"[bold]{accuracies.mean():.2%}[/]{spread if settings.seeds > 1 else ''}\n",
        highlight=False,
    )
    prediction = fnn.predict(model, chosen.params, chosen.state, images.test.x)
    confusion = np.asarray(fnn.confusion_matrix(prediction, images.test.y))
    save(picture_curves(title, twins), settings, f"{images.name}_curves")
    save(picture_confusion(title, confusion), settings, f"{images.name}_confusion")
    kernels = (np.asarray(params[0].kernel) for params in (twins.start[0], chosen.params))
    save(picture_kernel(title, *kernels, images.side), settings, f"{images.name}_kernel")
    return {"gaps": twins.gaps, "reports": reports, "accuracies": accuracies, "interval": (low, high),
            "confusion": confusion, "trained": twins.trained}  # fmt: skip


def show_twins(twins: Twins, reports: dict[str, fnn.GradientReport], settings: ClassifierSettings) -> None:
    for when, report in reports.items():
        console.print(f"Gradients by hand beside jax.grad, {when}", style="bold")
        console.print(str(report), markup=False, highlight=False, soft_wrap=True)
        console.print()
    compared = table("epoch", "test loss by hand", "by autodiff", "accuracy by hand", "by autodiff", "largest gap")
    columns = [
        (twins.trained[name].history.validation[figure], form)
        for figure, form in (("loss", "{:.6f}"), ("accuracy", "{:.2%}"))
        for name in ("manual", "autodiff")
    ]
    for epoch in sorted({0, settings.epochs // 4, settings.epochs // 2, settings.epochs - 1}):
        row = (form.format(values[epoch]) for values, form in columns)
        compared.add_row(str(epoch + 1), *row, f"{twins.gaps[epoch]:.1e}")
    console.print(compared)
    console.print(
        f"Largest gap of a parameter between the two trainings: [bold]{np.max(twins.gaps):.1e}[/] after any epoch, "
        f"{twins.gaps[-1]:.1e} after the last step",
        highlight=False,
    )


def picture_curves(title: str, twins: Twins) -> Figure:
    """Losses and accuracy by epoch of the two trainings, and the gap between their parameters."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    figure.suptitle(f"{title}: by hand and by autodiff the network learns the same", fontweight="bold")
    loss_axes, accuracy_axes, gap_axes = figure.subplots(1, 3)
    styles = {"manual": ("by hand", BY_HAND, "-", 3.2), "autodiff": ("by jax.grad", BY_AUTODIFF, "--", 1.4)}
    for name, (label, colour, line, width) in styles.items():
        history = twins.trained[name].history
        epochs = np.arange(1, len(history.loss) + 1)
        style = {"color": colour, "linestyle": line, "linewidth": width}
        loss_axes.semilogy(epochs, history.loss, **style, alpha=0.5, label=f"training, {label}")
        loss_axes.semilogy(epochs, history.validation["loss"], **style, label=f"test, {label}")
        accuracy_axes.plot(epochs, 100 * history.validation["accuracy"], **style, label=label)
    # Two runs that are the same to the last bit have no place on a logarithmic axis: draw them at the smallest gap.
    floor = float(np.finfo(float).eps) / 8
    gap_axes.semilogy(np.arange(1, len(twins.gaps) + 1), np.maximum(twins.gaps, floor), color="#555555")
    loss_axes.set(xlabel="epoch", ylabel="cross-entropy (nats)")
    accuracy_axes.set(xlabel="epoch", ylabel="test accuracy (%)")
    gap_axes.set(xlabel="epoch", ylabel="largest gap of a parameter", ylim=(floor / 2, 1))
    for axes in (loss_axes, accuracy_axes, gap_axes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    loss_axes.legend(frameon=False, fontsize="small")
    accuracy_axes.legend(frameon=False, loc="lower right")
    return figure


def picture_confusion(title: str, confusion: np.ndarray) -> Figure:
    """Counts of each class (row) taken for which (column), the mistakes coloured."""
    figure = Figure(figsize=(6, 5.6), layout="constrained")
    axes = figure.subplots()
    right, total = int(np.trace(confusion)), int(confusion.sum())
    axes.set_title(f"{title}: {right} of {total} test images named right", fontweight="bold")
    classes = np.arange(len(confusion))
    mistakes = np.where(np.eye(len(confusion), dtype=bool), 0, confusion)
    axes.imshow(mistakes, cmap="Oranges", vmax=2 * max(4, mistakes.max()))
    for row, column in np.ndindex(confusion.shape):
        count = confusion[row, column]
        if count:
            axes.text(column, row, count, ha="center", va="center", color="black" if row != column else BY_HAND,
                      fontweight="bold" if row == column else "normal")  # fmt: skip
    axes.set(xlabel="taken for", ylabel="truly", xticks=classes, yticks=classes)
    return figure


def picture_kernel(title: str, start: np.ndarray, kernel: np.ndarray, side: int) -> Figure:
    """What units of the first layer look for: their weights as images, and below what training added to the start."""
    columns, rows = 16, 2
    learned = kernel - start
    most_changed = np.argsort(-np.linalg.norm(learned, axis=0))[: columns * rows]
    figure = Figure(figsize=(12, 4.3), layout="constrained")
    figure.suptitle(f"{title}: what {len(most_changed)} units of the first layer look for (blue for, red against)",
                    fontweight="bold")  # fmt: skip
    for part, weights, caption in zip(
        figure.subfigures(2, 1), (kernel, learned), ("their weights", "what training added to them"), strict=True
    ):
        part.suptitle(caption, fontsize="medium")
        for axes, unit in zip(part.subplots(rows, columns).flat, most_changed, strict=False):
            image = weights[:, unit].reshape(side, side)
            bound = np.abs(image).max() or 1
            axes.imshow(image, cmap="RdBu", vmin=-bound, vmax=bound)
        for axes in part.axes:
            axes.axis("off")
    return figure
