"""Experiments: one script a topic, ``python -m experiments.NAME``; ``python -m experiments`` runs them all."""
