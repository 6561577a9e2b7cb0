"""The engine of a check: from a loss, a gradient and their arguments to a report.

``examination`` runs the others in order. ``precision`` evaluates both gradients in float64, ``comparison`` compares
them leaf by leaf, ``kinks`` and ``ties`` find points without a derivative, ``slopes`` measures the loss and ``verdict``
decides which gradient is right, ``stability`` judges the caller's own dtype, ``steps`` and ``taps`` compare the
gradients on the way, ``properties`` checks repeatability, jit, vmap and second order, and ``problem`` collects the
sizes of the data.
"""
