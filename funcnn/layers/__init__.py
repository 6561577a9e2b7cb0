"""Layers: one file for each kind, with forward, backward and constructor; ``traversal`` and ``nodes`` walk over models."""
