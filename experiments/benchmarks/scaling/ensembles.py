"""Many networks trained at once, beside one after another.

``python -m experiments.benchmarks.scaling.ensembles`` trains a thousand XOR networks, with one logistic output and with
two logits, and a hundred digits networks, each in one ``train_ensemble``; and beside them one network alone, NumPy by
hand, scikit-learn and PyTorch, which train one network after another. NumPy also trains all at once, by products with
the networks as their first axis: what a careful person would write who has no ``vmap``.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import Progress
from sklearn.datasets import load_digits

import funcnn as fnn
from experiments.benchmarks.scaling import _other_libraries
from experiments.benchmarks.scaling._measurement import (
    Measurement,
    command,
    estimate,
    format_estimate,
    ratio,
    select_names,
    time_interleaved,
    tracked,
)
from experiments.harness.console import console, table

HEADLINE = "NumPy by hand"
XOR_SIZES, DIGITS_SIZES = {"XOR 2-4-1": (2, 4, 1), "XOR 2-4-2": (2, 4, 2)}, (64, 128, 64, 10)


@dataclass(frozen=True, kw_only=True)
class EnsemblesSettings:
    """Many networks at once."""

    xor_networks: int = 1000
    """XOR networks in one program."""
    xor_epochs: int = 10_000
    """Epochs, which are steps, of every XOR network."""
    digits_networks: int = 100
    """Digits networks in one program."""
    digits_epochs: int = 3
    """Epochs of every digits network, 28 steps each."""
    loop_epochs: int = 5000
    """Epochs of one XOR network by which the others' rate is measured; a hundredth as many of one digits network."""
    only: tuple[str, ...] = ()
    """The networks to train; all of them if none is named."""
    repetitions: int = 7
    """Measurements of each, interleaved."""
    seed: int = 0
    """Where the random starts begin."""
    out: Path = Path("report/scaling/ensembles.json")
    """The file for the figures."""


class Case(NamedTuple):
    """A network, its task, and how many of it and how long."""

    model: fnn.Layer
    loss: fnn.Loss
    task: _other_libraries.Task
    target: np.ndarray
    networks: int
    epochs: int
    loop_epochs: int


def cases(settings: EnsemblesSettings) -> dict[str, Case]:
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    labels = np.array([0, 1, 1, 0])
    x, y = load_digits(return_X_y=True)
    x, y = (x[:1792] / 16).astype(np.float32), y[:1792]
    results = {
        name: _case(sizes, corners, labels, 4, settings.xor_networks, settings.xor_epochs, settings.loop_epochs)
        for name, sizes in XOR_SIZES.items()
    }
    loop_epochs = max(1, settings.loop_epochs // 100)
    digits = _case(DIGITS_SIZES, x, y, 64, settings.digits_networks, settings.digits_epochs, loop_epochs)
    return results | {"digits 64-128-64-10": digits}


def _case(sizes, x, y, batch_size, networks, epochs, loop_epochs) -> Case:
    model = fnn.mlp(sizes)
    params, _ = model.init(jax.random.key(0))
    start = tuple((np.asarray(part.kernel), np.asarray(part.bias)) for part in params if part != ())
    task = _other_libraries.Task(sizes, x, y, batch_size, 0.01 if len(x) == 4 else 1e-3, start)
    if sizes[-1] == 1:
        return Case(
            model, fnn.sigmoid_cross_entropy, task, y[:, None].astype(np.float32), networks, epochs, loop_epochs
        )
    return Case(model, fnn.softmax_cross_entropy, task, y, networks, epochs, loop_epochs)


def stacked(task: _other_libraries.Task, networks: int) -> _other_libraries.Task:
    """The task with as many networks as first axis of the start."""
    start = tuple(tuple(np.repeat(part[None], networks, axis=0) for part in pair) for pair in task.start)
    return task._replace(start=start)


def runs(case: Case, seed: int) -> dict:
    """By name: what trains, and how many steps of one network that is."""
    task, steps = case.task, case.task.steps
    data = (jnp.asarray(task.x), jnp.asarray(case.target))
    optimizer, batch_size = fnn.adam(task.learning_rate), None if steps == 1 else task.batch_size
    arguments = (case.model, case.loss, optimizer, data)
    key = jax.random.key(seed)
    together = partial(
        fnn.train_ensemble, case.networks, *arguments, epochs=case.epochs, batch_size=batch_size, key=key
    )
    alone = jax.jit(lambda key: fnn.train(*arguments, epochs=case.epochs, batch_size=batch_size, key=key))
    few = max(1, case.loop_epochs // case.networks)
    results = {
        "funcnn, all at once": (together, case.networks * case.epochs * steps),
        "funcnn, one alone": (partial(alone, key), case.epochs * steps),
        "NumPy, all at once": (
            partial(_other_libraries.numpy_by_hand(stacked(task, case.networks)), few), case.networks * few * steps,
        ),
    }  # fmt: skip
    makers = {
        HEADLINE: _other_libraries.numpy_by_hand,
        "scikit-learn": _other_libraries.scikit_learn,
        "PyTorch": _other_libraries.pytorch,
    }
    for name, maker in makers.items():
        if (train := maker(task)) is not None:
            results[name] = (partial(train, case.loop_epochs), case.loop_epochs * steps)
    return results


def accuracy(case: Case, seed: int) -> float:
    """The share of samples that the networks label right at the end, the mean over all of them."""
    data = (case.task.x, case.target)
    batch_size = None if case.task.steps == 1 else case.task.batch_size
    trained = fnn.train_ensemble(
        case.networks, case.model, case.loss, fnn.adam(case.task.learning_rate), data, epochs=case.epochs,
        batch_size=batch_size, key=jax.random.key(seed),
    )  # fmt: skip
    logits = fnn.predict_ensemble(case.model, trained.params, trained.state, case.task.x, average=jnp.asarray)
    labels = logits[..., 0] > 0 if case.task.sizes[-1] == 1 else logits.argmax(axis=-1)
    return float((np.asarray(labels) == case.task.y).mean())


def measure(settings: EnsemblesSettings, bar: Progress) -> Measurement:
    results: Measurement = {"networks": {}, "absent": [] if _other_libraries.torch else ["PyTorch"]}
    known = cases(settings)
    chosen = select_names(known, settings.only)
    right = {name: accuracy(known[name], settings.seed) for name in tracked(bar, chosen, "accuracy")}
    for name in chosen:
        case = known[name]
        trains = runs(case, settings.seed)
        seconds = time_interleaved(
            {key: train for key, (train, _) in trains.items()}, settings.repetitions, bar=bar, title=name
        )
        rates = {key: [trains[key][1] / spent for spent in seconds[key]] for key in seconds}
        first = rates["funcnn, all at once"]
        results["networks"][name] = {
            "networks": case.networks, "epochs": case.epochs, "accuracy": right[name],
            "seconds": seconds, "network_steps": {key: steps for key, (_, steps) in trains.items()},
            "network_steps_a_second": {key: estimate(of) for key, of in rates.items()},
            "funcnn_all_at_once_over": {key: ratio(first, of) for key, of in rates.items()},
        }  # fmt: skip
    return results


def show(results: Measurement) -> None:
    for name, figures in results["networks"].items():
        title = f"{name}: {figures['networks']:,} networks, {figures['epochs']:,} epochs"
        made = table("trained by", "network-steps a second", "all at once over it", title=title)
        for key, rate in figures["network_steps_a_second"].items():
            style = "bold" if key == HEADLINE else None
            made.add_row(
                key, format_estimate(rate), format_estimate(figures["funcnn_all_at_once_over"][key]), style=style
            )
        console.print(made)
        console.print(f"samples right at the end: {figures['accuracy']:.1%}")
    console.print("scikit-learn has one logistic output for two classes. A first call of each isn't counted.")
    for library in results["absent"]:
        console.print(f"{library} isn't installed: left out.")


if __name__ == "__main__":
    command("ensembles", EnsemblesSettings, measure, show)
