"""The doctor's benchmark: its lists are what they say, and its table counts what it should."""

from collections import Counter
from typing import get_args

import pytest

from experiments.benchmarks import doctor
from experiments.benchmarks.doctor import Visit, _does_not_count, row
from experiments.benchmarks.monitored_runs import DATA, train
from experiments.benchmarks.sick_runs import HEALTHY, SICK
from experiments.benchmarks.unseen_runs import UNSEEN_HEALTHY, UNSEEN_SICK
from funcnn.health import Finding, Kind, diagnose_health


@pytest.mark.parametrize(("healthy", "sick"), [(HEALTHY, SICK), (UNSEEN_HEALTHY, UNSEEN_SICK)])
def test_every_kind_has_ten_patients(healthy, sick):
    counted = Counter(patient.kinds[0] for patient in sick)
    assert set(counted) == set(get_args(Kind))
    assert min(counted.values()) >= 10
    assert len(healthy) >= 60
    assert {patient.twin.name for patient in sick} <= {patient.name for patient in healthy}


def test_no_patient_is_seen_twice():
    names = [patient.name for patient in (*HEALTHY, *SICK, *UNSEEN_HEALTHY, *UNSEEN_SICK)]
    assert len(set(names)) == len(names)


@pytest.mark.benchmarks_smoke
def test_a_twin_is_healthy_and_its_sick_run_clearly_worse(untouched_configuration):
    patient = next(
        patient for patient in SICK if patient.name.startswith("learning_rate_too_low") and "xor" in patient.name
    )
    twin, sick = train(patient.twin), train(patient)
    assert twin.quality >= DATA["xor"]().quality
    assert _does_not_count(patient.twin, twin, {}) == ""
    assert _does_not_count(patient, sick, {patient.twin.name: twin.quality}) == ""
    assert "not sick" in _does_not_count(patient, twin, {patient.twin.name: twin.quality})
    assert "twin" in _does_not_count(patient, sick, {patient.twin.name: sick.quality})
    assert diagnose_health(twin.record, twin.facts) == ()
    assert "learning rate too low" in {finding.kind for finding in diagnose_health(sick.record, sick.facts)}


def test_the_table_counts_kinds_layers_and_false_alarms():
    healthy = HEALTHY[0]
    broken = next(patient for patient in SICK if patient.layer)
    right = Finding(broken.kinds[0], broken.layer, 0, "", "")
    visits = [
        Visit(healthy, 1.0, True, ()),
        Visit(healthy, 1.0, True, (right,)),
        Visit(broken, 0.0, True, (right,)),
        Visit(broken, 0.0, True, (right._replace(layer="elsewhere"),)),
        Visit(broken, 0.0, True, (right._replace(kind="unscaled input"), right._replace(kind="loss doesn't fall"))),
    ]
    assert row(visits) == ("2 of 3 (66.7%)", "1 of 3 (33.3%)", "1 of 2 (50.0%)", "1.3")
    assert doctor.share([], lambda visit: True) == "–"
