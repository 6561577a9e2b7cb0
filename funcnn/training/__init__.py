"""Training: ``train``, a pure function, and ``fit``, which watches over it; ``predict`` and ``evaluate``.

Whole-batch, single-sample and mini-batch descent are one loop with ``batch_size`` ``None``, ``1`` and ``n``.
``steps`` is the arithmetic; ``feeds`` brings the batches; ``loop`` is what happens between two compiled stretches;
``checkpoints``, ``divergence``, ``placement`` and ``watchers`` are what its name says each.
"""

from funcnn.training.checkpoints import CheckpointError as CheckpointError, Checkpoints as Checkpoints
from funcnn.training.divergence import DivergenceError as DivergenceError
from funcnn.training.fit import fit as fit
from funcnn.training.predict import evaluate as evaluate, predict as predict
from funcnn.training.results import History as History, Progress as Progress, Trained as Trained
from funcnn.training.train import train as train
