"""Agents: definitions in the database, each version immutable, one of them served."""

from app.agents.apply import Application, Applied, apply, compare
from app.agents.diff import Change, changes
from app.agents.rows import (
    DEFAULT_AGENT,
    check_known,
    create,
    delete,
    get,
    offer,
    page,
    patch,
    publish,
    read,
    rollback,
    seed,
    unarchive,
    version_of,
    versions,
)
from app.agents.spec import (
    AgentFields,
    AgentPatch,
    AgentSpec,
    Limits,
    ModelSettings,
    check_output_schema,
)
from app.agents.template import render_instructions
from app.agents.yaml import dump_yaml, read_documents, read_yaml

__all__ = [
    "DEFAULT_AGENT",
    "AgentFields",
    "AgentPatch",
    "AgentSpec",
    "Application",
    "Applied",
    "Change",
    "Limits",
    "ModelSettings",
    "apply",
    "changes",
    "check_known",
    "check_output_schema",
    "compare",
    "create",
    "delete",
    "dump_yaml",
    "get",
    "offer",
    "page",
    "patch",
    "publish",
    "read",
    "read_documents",
    "read_yaml",
    "render_instructions",
    "rollback",
    "seed",
    "unarchive",
    "version_of",
    "versions",
]
