"""Layers, one file for each kind: forward, backward, constructor. ``traversal`` and ``nodes`` walk over models."""
