"""The explanation of a report: the cause of each difference, and the summary paragraph.

A new cause of the checker is a function in one of the modules of ``causes``, a place in the list of
``causes/__init__.py``, and a name in ``Cause`` in ``gradcheck/report.py``.
"""
