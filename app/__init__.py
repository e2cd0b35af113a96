"""Parley: every interaction is a conversation, run by one executor."""
