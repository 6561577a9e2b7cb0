"""A pytest plugin that checks gradients, vjps and rules over a sweep of their arguments.

``fixture`` holds the fixture ``gradcheck``, ``cases`` the sweep, ``comparison`` the check of one case in the dtype of
its arguments, ``outcome`` the report of the sweep, and ``page`` the page of a run. The hooks stand in
``pytest_funcnn``, which pytest loads through the entry point.
"""

from pytest_funcnn import (
    gradcheck as gradcheck,
    pytest_addoption as pytest_addoption,
    pytest_configure as pytest_configure,
    pytest_runtest_makereport as pytest_runtest_makereport,
)
