"""What training returns, and what it tells on the way."""

from typing import NamedTuple

import numpy as np
import optax
from jax import numpy as jnp
from jaxtyping import Array, Float, Int

from funcnn.health import HealthReport
from funcnn.training.feeds import Stretch
from funcnn.training.steps import Carry, Figures
from funcnn.types import Params, State


class History(NamedTuple):
    """What was measured on the way.

    Fields:
        loss: mean loss of each epoch's batches, weighted by their sizes, ``(epochs,)``.
        step_loss: loss of every batch before its update, ``(epochs, steps)``; NaN behind the last batch of an epoch
            that has fewer than another.
        validation: by name, ``(validations,)``: ``loss`` and the metrics given to ``fit``; empty without validation
            data.
        validation_epochs: the epochs, from 1, after which it was measured, ``(validations,)``.
        health: what ``fit(monitor=True)`` saw, ``None`` without it.
    """

    loss: Float[Array, " epochs"]
    step_loss: Float[Array, "epochs steps"]
    validation: dict[str, Array]
    validation_epochs: Int[Array, " validations"]
    health: HealthReport | None = None


class Trained(NamedTuple):
    """What training leaves: the parameters, the running statistics, the optimizer's state and the history."""

    params: Params
    state: State
    opt_state: optax.OptState
    history: History


class Progress(NamedTuple):
    """What a callback is told after every epoch.

    Fields:
        epoch: epochs done, from 1.
        epochs: epochs there will be.
        loss: the epoch's mean training loss.
        validation: the newest validation figures by name.
        params, state: the parameters and running statistics after this epoch.
        step: steps done, over all epochs.
        seconds: time since training began.
    """

    epoch: int
    epochs: int
    loss: float
    validation: dict[str, float]
    params: Params
    state: State
    step: int
    seconds: float


class Ledger(NamedTuple):
    """What has been measured so far, on the host: pieces that grow, and the rows of a history.

    Fields:
        losses: of every step.
        sizes: samples of every step.
        ends: the position, in steps, at which each epoch ended.
        validation: figures by name.
        validated: the epochs after which they were measured.
        watched: the numbers of the watched steps.
        figures: by name, what every layer did at them, ``(steps, layers)``.
    """

    losses: list[np.ndarray]
    sizes: list[np.ndarray]
    ends: list[int]
    validation: dict[str, list]
    validated: list[int]
    watched: list[np.ndarray]
    figures: dict[str, list[np.ndarray]]

    def newest_epoch_loss(self) -> float:
        """Mean over the samples of the newest whole epoch: the last short batch weighs as much as it holds."""
        first, last = (self.ends[-2] if len(self.ends) > 1 else 0), self.ends[-1]
        losses, sizes = _newest(self.losses, last - first), _newest(self.sizes, last - first)
        return float((losses.astype(np.float64) * sizes).sum() / sizes.sum())

    def add(self, stretch: Stretch, done: int) -> None:
        """Take what the first ``done`` steps of a stretch left."""
        begins = sum(map(len, self.losses)) if done < len(stretch.losses) else 0
        ends = begins + done
        self.losses.append(stretch.losses[:done])
        self.sizes.append(stretch.sizes[:done])
        is_whole = done == len(stretch.losses)
        self.ends.extend(stretch.ends if is_whole else [end for end in stretch.ends if end <= ends])
        if stretch.figures:
            kept = len(stretch.watched) if is_whole else int((stretch.watched < ends).sum())
            self.watched.append(stretch.watched[:kept])
            for name, figures in named_figures(stretch.figures).items():
                self.figures.setdefault(name, []).append(figures[:kept])

    def history(self) -> History:
        losses, sizes = _joined(self.losses), _joined(self.sizes)
        ends = self.ends if self.ends and self.ends[-1] == len(losses) else [*self.ends, len(losses)]
        starts = np.array([0, *ends[:-1]], int)
        counts = np.array(ends, int) - starts
        is_there = np.arange(counts.max())[None, :] < counts[:, None]
        rows, weights = np.full(is_there.shape, np.nan, losses.dtype), np.zeros(is_there.shape)
        rows[is_there], weights[is_there] = losses, sizes
        sums = (rows.astype(np.float64) * weights).sum(axis=1, where=is_there)
        means = (sums / np.maximum(weights.sum(axis=1), 1)).astype(losses.dtype)
        validation = {
            name: jnp.stack([jnp.asarray(figure) for figure in figures]) for name, figures in self.validation.items()
        }
        return History(jnp.asarray(means), jnp.asarray(rows), validation, jnp.asarray(self.validated, jnp.int32))


def named_figures(figures: Figures) -> dict[str, np.ndarray]:
    return {**figures.measures._asdict(), "update_ratios": figures.update_ratios}


def new_ledger() -> Ledger:
    return Ledger([], [], [], {}, [], [], {})


def scanned_history(step_losses: Array, sizes: np.ndarray) -> History:
    """The history of whole epochs with the same steps, ``(epochs, steps)``, also while JAX traces."""
    shares = jnp.asarray(sizes / sizes.sum(), step_losses.dtype)
    nothing = jnp.zeros(0, jnp.int32)
    return History((step_losses * shares[None, :]).sum(axis=-1), step_losses, {}, nothing)


def as_trained(carry: Carry, history: History) -> Trained:
    return Trained(*carry, history=history)


def _joined(pieces):
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def _newest(pieces, count):
    kept = []
    for piece in reversed(pieces):
        kept.append(piece)
        count -= len(piece)
        if count <= 0:
            break
    return _joined(kept[::-1])[max(-count, 0) :]
