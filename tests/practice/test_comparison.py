"""The causes that the values of a wrong answer show, and the place where it differs."""

import numpy as np
import pytest

from funcnn import practice
from funcnn.practice.comparison import find_difference
from funcnn.practice.process import Array

RANDOM = np.random.default_rng(0)
SQUARE = [RANDOM.normal(size=(n, n)) for n in (3, 2, 4)]
WIDE = [RANDOM.normal(size=shape) for shape in ((3, 4), (2, 5), (1, 3))]
NUMBERS = [np.array(value) for value in (1.0, 2.0, 5.0)]


def difference(rights, change):
    answers = [Array(np.asarray(change(right)), "float64") for right in rights]
    return find_difference(answers, rights, [(right,) for right in rights], ("dx",), "backward(x)", 1e-6)


@pytest.mark.parametrize(
    ("rights", "change", "cause", "sentence"),
    [
        (SQUARE, np.transpose, "transposed", "rows and columns exchanged"),
        (WIDE, lambda right: right[:, ::-1], "transposed", "in another order"),
        (WIDE, lambda right: right / len(right), "scaled", "the factor changes with the shape"),
        (WIDE, lambda right: right * right.size, "scaled", "the factor changes with the shape"),
        (WIDE, lambda right: right / np.abs(right).max(), "normalized", "from input to input"),
        ([*WIDE, NUMBERS[2]], lambda right: right * np.abs(right).max(), "normalized", "from input to input"),
        (
            [WIDE[0], *NUMBERS],
            lambda right: right * np.abs(right).max(),
            "unknown",
            "Work the example of the statement by hand",
        ),
        (NUMBERS, np.square, "corner_case", "right for 1 of 3 inputs"),
        (WIDE, lambda right: right * np.where(np.arange(right.size) == 1, 9, 1).reshape(right.shape), "element", "few"),
    ],
)
def test_values_show_their_cause(rights, change, cause, sentence):
    found = difference(rights, change)
    assert (found.cause, found.output) == (cause, 0)
    assert sentence in found.sentence


def test_the_place_is_the_first_entry_of_the_smallest_input_that_differs():
    found = difference(SQUARE, lambda right: right + (np.arange(right.size) == 2).reshape(right.shape))
    two = SQUARE[1]
    assert found.place.startswith("For x = [[")
    assert found.place.endswith(f"dx[1, 0] is {two[1, 0] + 1:.6g}; the right value is {two[1, 0]:.6g}.")
    only_last = difference(SQUARE, lambda right: right + (len(right) == 4))
    assert only_last.place.startswith("For x of shape (4, 4): dx[0, 0] is ")


def test_numbers_in_the_place_of_a_word_are_told_from_words_in_the_place_of_numbers():
    messages = {
        "def answer():\n    return 3": "answer: expected str, got a number.",
        "def answer():\n    return [1, 2]": "answer: expected str, got an array of shape (2,).",
        "def answer():\n    return 'tanh'": "answer: 'tanh' isn't it.",
    }
    for answer, message in messages.items():
        assert practice.grade("predict-activation-choice", answer).message.startswith(message)
