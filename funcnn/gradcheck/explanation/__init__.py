"""The explanation of a report: the cause of each difference, and the summary paragraph.

``diagnosis`` tries two kinds of hypotheses. The detectors in ``causes`` compare the two gradients of a leaf. The
functions in ``mutations`` change the backward pass of the loss as people get it wrong, and a change that gives the
gradient by hand is confirmed: ``tape`` records the loss and runs its backward pass with other rules, ``activations``
finds its activations by their values, ``iterations`` groups what the same code does in each iteration of a loop,
``situation`` collects what is known, and ``search`` tries the mutations in order. ``recording`` gives the program of a
loss in NumPy, which is believed only where its value and its gradient are those that were measured.

A new cause is a detector in ``causes`` if those two gradients show it, and a mutation in ``mutations`` if the backward
pass has to be run with the mistake: a function in one of the modules, a place in the list of that package, and a name
in ``Cause`` in ``gradcheck/report.py``.
"""
