"""The executor: one path for every run, inline in the API process or in a worker."""

from app.executor.engine import Engine

__all__ = ["Engine"]
