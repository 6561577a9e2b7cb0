"""Right answers in unusual forms are right; wrong ones are refused, with their cause and without the solution."""

import re

import pytest

from funcnn import practice
from tests.practice import answers
from tests.practice.answers import right, wrong_formulas, wrong_statements

TASKS = {task.name: task for task in practice.tasks()}
FILES = {"statements": wrong_statements.WRONG, "formulas": wrong_formulas.WRONG}


def expressions(task):
    """Return the right-hand sides of a solution, without spaces."""
    lines = re.findall(r"(?:return|(?<!=)=) (.+)", task.solution)
    return {line.replace(" ", "") for line in lines if len(line) > 6 and set(line) & set("+-*/@(")}


def test_there_are_enough_answers():
    assert sum(map(len, right.RIGHT.values())) >= 150
    counts = [sum(map(len, wrong.values())) for wrong in FILES.values()]
    assert min(counts) >= 125
    assert sum(counts) >= 250


def test_no_sentence_or_hint_contains_the_solution():
    for task in TASKS.values():
        texts = [task.statement, task.fact, *task.hints, *(mistake.sentence for mistake in task.mistakes)]
        for text in texts if task.kind != "repair" else texts[2:]:
            assert not [part for part in expressions(task) if part in text.replace(" ", "")], (task.name, text)


@pytest.mark.practice_answers
@pytest.mark.parametrize("name", right.RIGHT)
def test_unusual_right_answers_are_right(name):
    for body in right.RIGHT[name]:
        result = practice.grade(name, answers.source(TASKS[name], body))
        assert result.ok, (body, result)


@pytest.mark.practice_answers
@pytest.mark.parametrize("file", FILES)
def test_no_wrong_answer_is_taken_and_nine_of_ten_have_their_cause(file):
    missed, total = [], 0
    for name, wrong in FILES[file].items():
        for causes, body in wrong:
            result = practice.grade(name, answers.source(TASKS[name], body))
            assert not result.ok, (name, body)
            assert not [part for part in expressions(TASKS[name]) if part in result.message.replace(" ", "")], result
            total += 1
            if result.cause not in causes.split("|"):
                missed.append(f"{name}: {body!r}: expected {causes}, got {result.cause}: {result.message}")
    assert len(missed) <= total / 10, "\n".join([f"{len(missed)} of {total}", *missed])
