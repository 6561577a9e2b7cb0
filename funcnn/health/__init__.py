"""Whether a training run is well, and if it isn't, in which layer, since when, and what to try.

``measures`` takes every layer's figures along with a step's gradients; ``record`` is what a run leaves; ``course``
reads the losses; ``data``, ``signal`` and ``pace`` hold the rules, a family each, for the ``kinds`` of findings there
are; ``findings`` asks them all; ``report`` says it.
"""

from funcnn.health.findings import Finding as Finding, Kind as Kind, diagnose_health as diagnose_health
from funcnn.health.measures import (
    LayerMeasures as LayerMeasures,
    monitored_value_and_grad as monitored_value_and_grad,
    update_ratios as update_ratios,
)
from funcnn.health.record import (
    HealthRecord as HealthRecord,
    InputFacts as InputFacts,
    LayerFacts as LayerFacts,
    RecipeFacts as RecipeFacts,
    TargetFacts as TargetFacts,
    input_facts as input_facts,
    recipe_facts as recipe_facts,
    target_facts as target_facts,
)
from funcnn.health.report import HealthReport as HealthReport, health_report as health_report
from funcnn.layers.walk import layer_names as layer_names
