"""A pytest plugin that checks gradients, vjps and rules over a sweep of their arguments.

``fixture`` holds the fixture ``gradcheck``, ``cases`` the sweep, ``comparison`` the check of one case in the dtype of
its arguments, ``outcome`` the report of the sweep, and ``page`` the page of a run. The hooks stand in
``pytest_funcnn``, which pytest loads through the entry point ``funcnn``; ``-p no:funcnn`` leaves it out.
"""
