"""Measurements of ``experiments.calibration``, on known cases."""

import numpy as np
import pytest

from experiments import calibration


def test_the_calibration_error_of_a_known_forecast():
    # Half of the predictions say 0.9 and are always right; half say 0.6 and are right every second time.
    chances = np.array([[0.9, 0.1], [0.6, 0.4]] * 50)
    y = np.array([0, 0, 0, 1] * 25)
    assert calibration.calibration(chances, y).error == pytest.approx((0.1 + 0.1) / 2)


def test_a_temperature_that_was_multiplied_in_is_found_again():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 5))
    chances = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    y = (rng.random((len(z), 1)) > chances.cumsum(axis=1)).sum(axis=1)
    assert calibration.fit_temperature(3 * z, y) == pytest.approx(3, rel=0.05)
