"""The twin of the language model: the same losses after a few steps, in float64 to many digits."""

import re

import pytest

from experiments.benchmarks.language_twin import TwinSettings, train_both
from experiments.shared.characters import Size
from funcnn._numerics.precision import enable_x64


def test_both_have_the_same_loss_after_a_few_steps(capsys):
    size = Size(8, 8, 2, 2, 0, 3, 0, 1e-2, 5)
    with enable_x64(True):
        (found,) = train_both(TwinSettings(seeds=1, steps=4), size)
    assert found["funcnn"] == pytest.approx(found["PyTorch"], rel=1e-9)
    printed = capsys.readouterr().out
    for part in ("funcnn, all seeds", "PyTorch, seed 0"):
        assert re.search(rf"^4 of 4 steps after \d+ seconds: {part}", printed, re.MULTILINE)
