"""Tasks: stored intents - a prompt, an agent, a trigger and who is told - and the fires that start them."""

from app.tasks.change import patch
from app.tasks.fields import TaskBody, TaskPatch
from app.tasks.fire import Fired, execute, fire_due, seconds_to_next
from app.tasks.new import NewTask, NewTasks
from app.tasks.query import Shown, fires, get, page, receipt, receipts, switchable
from app.tasks.rows import Saved, create, delete, rotate
from app.tasks.switch import disable, enable
from app.tasks.trigger import TriggerConfig
from app.tasks.webhook import shown as shown_trigger
from app.tasks.webhook import webhook_url

__all__ = [
    "Fired",
    "NewTask",
    "NewTasks",
    "Saved",
    "Shown",
    "TaskBody",
    "TaskPatch",
    "TriggerConfig",
    "create",
    "delete",
    "disable",
    "enable",
    "execute",
    "fire_due",
    "fires",
    "get",
    "page",
    "patch",
    "receipt",
    "receipts",
    "rotate",
    "seconds_to_next",
    "shown_trigger",
    "switchable",
    "webhook_url",
]
