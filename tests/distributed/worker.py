"""One of several processes that train together: ``python -m tests.distributed.worker PROCESS OF PORT FOLDER``.

It reads its own part of every batch, trains on the devices of all, and the first one writes the weights.
"""

import sys
from pathlib import Path

import jax
import numpy as np

import funcnn as fnn
from experiments.harness.distributed import DistributedSettings, join

EPOCHS, BATCH = 40, 16
MODEL = fnn.mlp((3, 128, 1), fnn.tanh, normalization=fnn.batch_norm, dropout=0.1)


def data():
    x = np.random.default_rng(0).normal(size=(64, 3))
    return x, np.sin(x.sum(axis=1, keepdims=True))


def parts(process, of):
    """This process's samples of every batch."""
    x, y = data()
    size = BATCH // of
    starts = range(process * size, len(x), BATCH)
    return [(x[start : start + size], y[start : start + size]) for start in starts]


def train(mesh, process=0, of=1, folder=None, from_memory=False):
    return fnn.fit(
        MODEL, fnn.mean_squared_error, fnn.momentum(0.05), data() if from_memory else parts(process, of), epochs=EPOCHS,
        batch_size=BATCH if from_memory else None, key=jax.random.key(0), mesh=mesh,
        checkpoints=folder and fnn.Checkpoints(folder, every=5),
    )  # fmt: skip


if __name__ == "__main__":
    process, of, port, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
    mesh = join(DistributedSettings(distributed=True, coordinator=f"127.0.0.1:{port}", processes=of, process=process))
    for name, from_memory in (("streamed", False), ("in memory", True)):
        trained = train(mesh, process, of, folder / name, from_memory)
        fnn.save(folder / f"{name}.safetensors", *jax.device_get((trained.params, trained.state)))
    print("done", process, flush=True)
