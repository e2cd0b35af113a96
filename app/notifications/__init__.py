"""Notifications: planned as rows in the transaction that ends a run, sent by workers.

`plan()` says which deliveries an event makes, `Sender` hands them over, `CHANNELS` lists the ways.
"""

from app.notifications.config import NotificationConfig, operator_allows, shown
from app.notifications.notice import Notice
from app.notifications.plan import PlannedDelivery, plan
from app.notifications.registry import CHANNELS

__all__ = ["CHANNELS", "Notice", "NotificationConfig", "PlannedDelivery", "operator_allows", "plan", "shown"]
