"""Rows, indexes and constraints, one file per noun; no behaviour."""

from app.models.agent import Agent, AgentVersion, RegisteredTool, ToolSource, ToolVersion
from app.models.answer import Answer
from app.models.artifact import Artifact
from app.models.breaker import Breaker
from app.models.conversation import Conversation, Event, Head, Input, Message
from app.models.credential import Canary, Credential
from app.models.delivery import Delivery, Mute, ReplyAddress, SlackMessage, SlackThread
from app.models.document import Chunk, Document
from app.models.identity import ApiKey, AuditEntry, Idempotency, Principal, WorkerProcess, Workspace
from app.models.memory import Memory
from app.models.run import Approval, Hold, Run, ToolCall
from app.models.table import Base, new_id
from app.models.task import Fire, Receipt, Task, TaskDependency

__all__ = [
    "Agent",
    "AgentVersion",
    "Answer",
    "ApiKey",
    "Approval",
    "Artifact",
    "AuditEntry",
    "Base",
    "Breaker",
    "Canary",
    "Chunk",
    "Conversation",
    "Credential",
    "Delivery",
    "Document",
    "Event",
    "Fire",
    "Head",
    "Hold",
    "Idempotency",
    "Input",
    "Memory",
    "Message",
    "Mute",
    "Principal",
    "Receipt",
    "RegisteredTool",
    "ReplyAddress",
    "Run",
    "SlackMessage",
    "SlackThread",
    "Task",
    "TaskDependency",
    "ToolCall",
    "ToolSource",
    "ToolVersion",
    "WorkerProcess",
    "Workspace",
    "new_id",
]
