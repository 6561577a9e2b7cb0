"""Layers: one file for each kind, with forward, backward and constructor; ``traversal`` walks over models."""
