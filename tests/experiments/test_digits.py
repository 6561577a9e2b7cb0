"""Handwritten digits by hand and by autodiff: the same network, and it learns."""

import pytest

from experiments import digits
from experiments.harness.experiment import Settings


@pytest.fixture(scope="module")
def findings():
    return {finding.claim.name: finding for finding in digits.run(Settings(seeds=3)).findings}


def test_the_two_trainings_stay_within_1e_9_in_every_parameter(findings):
    assert 0 <= findings["digits-same"].estimate < 1e-9


def test_digits_are_learned(findings):
    assert findings["digits-learned"].estimate > 0.96
