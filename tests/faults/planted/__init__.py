"""Planted defects: each patch breaks one promise, and the tests it names must see it.

    python -m tests.faults.planted

Nothing of this checkout is touched: the patches are applied to a copy of it, one at a time.
"""
