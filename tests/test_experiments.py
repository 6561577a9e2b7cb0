"""The experiments: what they claim holds, every option works, and the pictures are there."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from experiments import digits, mnist
from experiments.classification import interval
from experiments.digits import DigitsSettings
from experiments.mnist import MnistSettings


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory, untouched_configuration):
    out = tmp_path_factory.mktemp("report")
    return digits.run(DigitsSettings(out=out, seeds=3)), out


def test_the_two_digits_trainings_stay_within_1e_9_in_every_parameter(digits_run):
    figures, _ = digits_run
    by_hand, by_autodiff = (figures["trained"][name] for name in ("manual", "autodiff"))
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), by_hand.params, by_autodiff.params)
    assert {leaf.dtype for leaf in jax.tree.leaves(by_hand.params)} == {jnp.dtype("float64")}
    assert all(gap < 1e-9 for gap in [*jax.tree.leaves(gaps), *figures["gaps"]])


def test_digits_are_learned(digits_run):
    figures, _ = digits_run
    assert figures["accuracies"].mean() > 0.96
    assert figures["confusion"].sum() == 360
    assert figures["confusion"].trace() > 0.96 * 360


def test_the_gradients_of_the_first_and_the_last_step_agree(digits_run):
    figures, _ = digits_run
    for report in figures["reports"].values():
        assert report.ok
        assert [leaf.path for leaf in report.leaves] == [
            f"[{layer}].{name}" for layer in (0, 2, 4) for name in ("kernel", "bias")
        ]


def test_pictures_are_written(digits_run):
    _, out = digits_run
    pictures = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(pictures) == {"digits_curves.png", "digits_confusion.png", "digits_kernel.png"}
    assert all(picture.startswith(b"\x89PNG") and len(picture) > 10_000 for picture in pictures.values())


def test_mnist_by_autodiff_in_float32(tmp_path, untouched_configuration):
    settings = replace(MnistSettings(), epochs=1, seeds=2, grad="autodiff", out=tmp_path)
    figures = mnist.run(settings)
    assert figures["accuracies"].min() > 0.8
    assert all(gap < 1e-3 for gap in figures["gaps"])
    assert {path.name for path in tmp_path.iterdir()} == {
        f"mnist_{name}.png" for name in ("curves", "confusion", "kernel")
    }


def test_one_network_has_no_interval():
    low, high = interval(jnp.array([0.9]))
    assert low != low
    assert high != high


@pytest.mark.parametrize("script", ["experiments", "experiments.chapter", "experiments.digits", "experiments.mnist"])
def test_every_script_names_its_options(script):
    shown = subprocess.run([sys.executable, "-m", script, "--help"], capture_output=True, text=True, check=True).stdout
    for option in ("--seed", "--epochs", "--grad", "manual", "autodiff", "--out"):
        assert option in shown


def test_a_wrong_option_is_refused_with_the_choices():
    refused = subprocess.run(
        [sys.executable, "-m", "experiments.digits", "--grad", "magic"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "manual" in refused.stderr + refused.stdout
