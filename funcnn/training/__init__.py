"""Training: ``train``, a pure function, and ``fit``, for long runs; ``predict`` and ``evaluate``.

Whole-batch, stochastic and mini-batch descent are one loop, with ``batch_size`` ``None``, ``1`` and ``n``.

``steps`` holds the compiled steps and ``batches`` the source of their batches. ``loop`` is the loop of ``fit`` around
them, and ``run`` its data. It uses ``validation``, ``early_stopping``, ``callbacks``, ``observers`` (with ``writers``),
``pace``, ``interrupts``, ``divergence`` and, for runs that resume, ``checkpoints``, ``store``, ``run_folder``,
``resume`` and ``run_identity``; ``placement`` is for meshes of devices.
"""

from funcnn.training.callbacks import JSONLines as JSONLines, TensorBoard as TensorBoard
from funcnn.training.checkpoints import Checkpoints as Checkpoints
from funcnn.training.divergence import DivergenceError as DivergenceError
from funcnn.training.early_stopping import EarlyStopping as EarlyStopping
from funcnn.training.errors import CheckpointError as CheckpointError, RunError as RunError
from funcnn.training.fit import fit as fit
from funcnn.training.predict import evaluate as evaluate, predict as predict
from funcnn.training.results import History as History, Progress as Progress, Trained as Trained
from funcnn.training.train import train as train
from funcnn.training.validation import Validation as Validation
