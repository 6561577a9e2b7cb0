"""Measurements of ``experiments.softmax``, on known cases."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import softmax

CHAPTER = json.loads((Path(__file__).parents[1] / "data" / "chapter.json").read_text())


def test_the_claimed_figures_are_the_chapters():
    example = CHAPTER["activation_table"]
    assert list(softmax.LOGITS) == example["inputs"]["logits"]
    np.testing.assert_allclose(softmax.FIGURES, example["computed"]["softmax"], atol=5e-5)


@pytest.mark.parametrize(("dtype", "last"), [(jnp.float16, 11.0859375), (jnp.bfloat16, 88.5)])
def test_the_plain_formula_breaks_at_the_number_after(dtype, last):
    assert softmax.largest_valid_score(dtype, lambda z: (z, 0)) == last
    after = np.nextafter(np.array(last, dtype), np.array(np.inf, dtype))
    assert np.isfinite(softmax.naive_softmax(np.array([last, 0], dtype)).astype(float)).all()
    assert not np.isfinite(softmax.naive_softmax(np.array([after, 0], dtype)).astype(float)).all()


def test_pictures_of_two_show_what_their_labels_say():
    x, y = np.eye(10, 64) + 1, np.arange(10)
    pictures, labels = softmax.paired_images(np.random.default_rng(0), x, y, 200)
    sides = pictures.reshape(200, 8, 2, 8).transpose(0, 2, 1, 3).reshape(200, 2, 64)
    shown = [{int(side[:10].argmax()) for side in pair if side.any()} for pair in sides]
    assert shown == [set(np.flatnonzero(row)) for row in labels]
    np.testing.assert_allclose(softmax.target_shares(labels).sum(axis=1), 1)
    assert {len(digits) for digits in shown} == {0, 1, 2}
