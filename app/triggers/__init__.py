"""Triggers: inbound webhook calls, verified, counted once, and turned into runs."""

from app.triggers.payload import DELIVERY_HEADERS
from app.triggers.receipts import refuse
from app.triggers.receive import Received, admit, receive, replay
from app.triggers.verify import TOKEN_HEADER, Call

__all__ = ["DELIVERY_HEADERS", "TOKEN_HEADER", "Call", "Received", "admit", "receive", "refuse", "replay"]
