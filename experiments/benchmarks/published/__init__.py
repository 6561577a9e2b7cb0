"""Wrong gradients reported in public trackers, each rebuilt with its right twin and its project's own test."""

from experiments.benchmarks.published import activations, arrays, attention, images, losses, networks, normalization
from experiments.benchmarks.published.report import Report as Report

REPORTS: tuple[Report, ...] = (
    *normalization.REPORTS,
    *attention.REPORTS,
    *losses.REPORTS,
    *activations.REPORTS,
    *images.REPORTS,
    *arrays.REPORTS,
    *networks.REPORTS,
)
