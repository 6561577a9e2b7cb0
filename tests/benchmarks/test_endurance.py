"""The study of memory over many runs and many steps, with few of both."""

import pytest

from experiments.benchmarks.endurance import EnduranceSettings, run

pytestmark = pytest.mark.benchmarks_smoke


def test_both_parts_are_measured(tmp_path, capfd):
    found = run(EnduranceSettings(runs=10, steps=300, out=tmp_path))
    assert found["many runs"]["runs"] == 10
    assert 100 < found["many runs"]["MiB after run 10"] < 4000
    assert found["a long run"]["steps"] == 300
    assert found["a long run"]["MiB of the log"] > 0
    assert (tmp_path / "endurance.json").exists()
    printed = capfd.readouterr().out
    assert "10 of 10 runs after" in printed
    assert "20 of 20 epochs after" in printed
