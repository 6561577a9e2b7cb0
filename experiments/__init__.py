"""Experiments: each module directly in this folder is one topic, run by ``python -m experiments.NAME``."""
