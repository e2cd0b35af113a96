"""The fixtures of the engine's tests."""

from tests.engine import engine, world

__all__ = ["engine", "world"]
