"""Parley: every interaction is a conversation, run by one executor."""

__version__ = "0.1.0"
