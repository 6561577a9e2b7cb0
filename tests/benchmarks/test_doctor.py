"""The monitor's benchmark: the lists of runs, and the counts of the table."""

from collections import Counter
from typing import get_args

import pytest

from experiments.benchmarks import doctor, reliability
from experiments.benchmarks.doctor import COLUMNS, Diagnosis, _does_not_count, row
from experiments.benchmarks.faulty_runs import FAULTY, HEALTHY
from experiments.benchmarks.held_out_runs import HELD_OUT_FAULTY, HELD_OUT_HEALTHY
from experiments.benchmarks.monitored_runs import DATA, train
from funcnn.health import Finding, Kind, diagnose_health


@pytest.mark.parametrize(("healthy", "faulty"), [(HEALTHY, FAULTY), (HELD_OUT_HEALTHY, HELD_OUT_FAULTY)])
def test_every_kind_has_ten_faulty_runs(healthy, faulty):
    counted = Counter(case.kinds[0] for case in faulty)
    assert set(counted) == set(get_args(Kind))
    assert min(counted.values()) >= 10
    assert len(healthy) >= 60
    assert {case.twin.name for case in faulty} <= {case.name for case in healthy}


def test_names_are_unique():
    names = [case.name for case in (*HEALTHY, *FAULTY, *HELD_OUT_HEALTHY, *HELD_OUT_FAULTY)]
    assert len(set(names)) == len(names)


@pytest.mark.benchmarks_smoke
def test_a_twin_is_healthy_and_its_faulty_run_clearly_worse(untouched_configuration):
    case = next(case for case in FAULTY if case.name.startswith("learning_rate_too_low") and "xor" in case.name)
    twin, faulty = train(case.twin), train(case)
    assert twin.quality >= DATA["xor"]().quality
    assert _does_not_count(case.twin, twin, {}) == ""
    assert _does_not_count(case, faulty, {case.twin.name: twin.quality}) == ""
    assert "not faulty" in _does_not_count(case, twin, {case.twin.name: twin.quality})
    assert "twin" in _does_not_count(case, faulty, {case.twin.name: faulty.quality})
    assert diagnose_health(twin.record, twin.facts) == ()
    assert "learning rate too low" in {finding.kind for finding in diagnose_health(faulty.record, faulty.facts)}


def test_the_table_counts_kinds_layers_and_false_alarms():
    healthy = HEALTHY[0]
    broken = next(case for case in FAULTY if case.layer)
    right = Finding(broken.kinds[0], broken.layer, 0, "", "")
    other, symptom = right._replace(kind="unscaled input"), right._replace(kind="loss doesn't fall")
    diagnoses = [
        Diagnosis(healthy, 1.0, True, ()),
        Diagnosis(healthy, 1.0, True, (right,)),
        Diagnosis(broken, 0.0, True, (right,)),
        Diagnosis(broken, 0.0, True, (right._replace(layer="elsewhere"),)),
        Diagnosis(broken, 0.0, True, (other, symptom)),
        Diagnosis(broken, 0.0, False, (symptom,)),
        Diagnosis(broken, 0.0, False, ()),
    ]
    assert dict(zip(COLUMNS[1:], row(diagnoses), strict=True)) == {
        "any finding": "4 of 5 (80.0%)",
        "fault named": "2 of 5 (40.0%)",
        "named wrongly": "1 of 5 (20.0%)",
        "right layer": "1 of 5 (20.0%)",
        "false alarms": "1 of 2 (50.0%)",
        "findings each": "1.0",
    }
    _, result, _ = reliability.doctor_row({"diagnoses": list(map(doctor.record, diagnoses))})
    assert result == (
        "fault named in 2, named wrongly in 1; if one layer was broken, that layer in 1 of 5; 1 false alarm"
    )
    assert doctor.share([], lambda diagnosis: True) == "–"
