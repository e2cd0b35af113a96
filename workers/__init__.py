"""The processes that run runs: the worker and the scheduler."""
