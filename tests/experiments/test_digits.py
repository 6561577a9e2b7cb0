"""Digits trained by both gradients: equal parameters, and the accuracy."""

import pytest

from experiments import digits
from experiments.harness.experiment import Settings


@pytest.fixture(scope="module")
def results():
    return {result.claim.name: result for result in digits.run(Settings(seeds=3)).results}


def test_the_two_trainings_stay_within_1e_9_in_every_parameter(results):
    assert 0 <= results["digits-same"].estimate < 1e-9


def test_digits_are_learned(results):
    assert results["digits-learned"].estimate > 0.96
