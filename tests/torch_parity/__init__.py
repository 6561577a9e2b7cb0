"""Layers, losses, models, weights and gradient checks beside PyTorch: ``nox -s torch_parity``."""
