"""Health of a training run: what is wrong, in which layer, since which step, and what to try.

``measures`` measures every layer at a step, ``record`` holds the measures of a run, ``loss_curve`` summarises its
losses. ``rules`` finds the faults, ``findings`` applies the rules, and ``report`` renders the findings.
"""

from funcnn.health.findings import diagnose_health as diagnose_health
from funcnn.health.kinds import Finding as Finding, Kind as Kind
from funcnn.health.measures import (
    LayerMeasures as LayerMeasures,
    monitored_value_and_grad as monitored_value_and_grad,
    update_ratios as update_ratios,
)
from funcnn.health.record import (
    HealthRecord as HealthRecord,
    InputFacts as InputFacts,
    LayerFacts as LayerFacts,
    ModelFacts as ModelFacts,
    TargetFacts as TargetFacts,
    input_facts as input_facts,
    model_facts as model_facts,
    target_facts as target_facts,
)
from funcnn.health.report import HealthReport as HealthReport, health_report as health_report
