"""The chapter's worked examples give their true figures, to the last digits of float64."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import chapter

CHAPTER = json.loads((Path(__file__).parent / "data" / "chapter.json").read_text())
LARGEST_RELATIVE_ERROR = 1e-12


@pytest.fixture(scope="module", params=["manual", "autodiff"])
def figures(request, tmp_path_factory, untouched_configuration):
    return chapter.run(chapter.ChapterSettings(grad=request.param, out=tmp_path_factory.mktemp("report")))


@pytest.mark.parametrize("example", [name for name, entry in CHAPTER.items() if "computed" in entry])
def test_true_figures(example, figures):
    expected = CHAPTER[example]["computed"]
    assert jax.tree.structure(figures[example]) == jax.tree.structure(expected)
    jax.tree.map(
        lambda ours, true: np.testing.assert_allclose(ours, true, rtol=LARGEST_RELATIVE_ERROR, atol=1e-12),
        figures[example],
        expected,
    )


def test_every_example_is_covered(figures):
    assert set(figures) == set(CHAPTER)
