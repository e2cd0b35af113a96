"""The resource /agents."""

import asyncio
import json
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app import agents, audit
from app.agents import AgentFields, AgentPatch, AgentSpec, Applied, Change
from app.api.access import Caller, may
from app.api.idempotency import Idempotent
from app.api.pages import Page, PageOf, paged
from app.api.problems import misfit
from app.api.shapes import VersionBody, Warned
from app.api.strict import read_json, resource
from app.errors import InvalidRequest, MalformedBody, NotFound, UnsupportedMediaType
from app.models import Agent, AgentVersion, new_id
from app.providers import missing_key
from app.settings import Settings
from app.tools.registry import INSTALLED, offered

router = resource("agents")

YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
EXAMPLE = {
    "name": "reporter",
    "model": "openai:gpt-6.1-terra",
    "instructions": "You write short reports. Today is {{ today }}.",
    "tools": ["calculator", "current_time"],
    "limits": {"requests": 20, "cost_usd": 0.5},
}
STATUS = "`published`: it is served; `superseded`: it was once; `draft`: it never was."

Reads = Annotated[Caller, may("agents:read")]
Writes = Annotated[Caller, may("agents:write")]


class AgentOut(AgentFields):
    """An agent in one of its versions."""

    id: UUID
    name: str = Field(examples=["reporter"])
    version: int = Field(description="The version whose fields are shown.", examples=[1])
    published_version: int = Field(description="The version that is served.", examples=[1])
    latest_version: int = Field(description="The newest version, a draft when it is not the served one.", examples=[2])
    status: str = Field(description=STATUS, examples=["published"])
    sha256: str = Field(description="Names the version's content.")
    published_at: datetime | None = Field(description="When the version was published last; null: never.")
    archived_at: datetime | None = Field(description="When the agent was deleted; null: it is in service.")
    created_at: datetime = Field(description="When the agent was made; in a list of versions, when the version was.")
    updated_at: datetime
    warnings: list[Warned] = Field(default_factory=list[Warned])


class AgentApply(AgentFields):
    """A whole agent; a field that is left out takes its default."""

    name: str | None = Field(default=None, description="The name in the path; may be left out.")


class ChangeOut(BaseModel):
    """A field that differs."""

    field: str = Field(examples=["limits.requests"])
    before: Any = Field(description="Its value before; null where it had none.", examples=[50])
    after: Any = Field(description="Its value after.", examples=[20])
    lines: list[str] = Field(
        description="For people: `-` taken away, `+` added, a blank before what stayed.", examples=[["-50", "+20"]]
    )

    @classmethod
    def of(cls, change: Change) -> "ChangeOut":
        """A change as the API shows it."""
        return cls(field=change.field, before=change.before, after=change.after, lines=change.lines)


class DiffOut(BaseModel):
    """What tells two versions apart."""

    before: int = Field(description="The first version.", examples=[1])
    after: int = Field(description="The second version.", examples=[2])
    before_published_at: datetime | None = Field(description="When the first was published last; null: never.")
    after_published_at: datetime | None = Field(description="When the second was published last; null: never.")
    changes: list[ChangeOut] = Field(description="The fields that differ.")


class AppliedOut(BaseModel):
    """What applying did, or would do."""

    applied: Applied = Field(description="What became of the agent.", examples=["updated"])
    dry_run: bool = Field(description="Whether nothing was stored.")
    version: int | None = Field(description="The version that holds it; null when none was stored.", examples=[2])
    changes: list[ChangeOut] = Field(description="What differs from what was served before.")
    warnings: list[Warned] = Field(default_factory=list[Warned])


def show(agent: Agent, version: AgentVersion, settings: Settings) -> AgentOut:
    """An agent as the API shows it."""
    served = version.version == agent.published_version
    spec = version.spec
    return AgentOut.model_validate(
        {
            **spec,
            "id": agent.id,
            "name": agent.name if served else spec["name"],
            "version": version.version,
            "published_version": agent.published_version,
            "latest_version": agent.latest_version,
            "status": "published" if served else "superseded" if version.published_at else "draft",
            "sha256": version.sha256,
            "published_at": version.published_at,
            "archived_at": agent.deleted_at,
            "created_at": agent.created_at,
            "updated_at": agent.updated_at,
            "warnings": warnings_of(spec, settings),
        }
    )


def warnings_of(spec: dict[str, Any], settings: Settings) -> list[Warned]:
    """What will stop or change a run of this agent as the server is set now."""
    keys = [(model, missing_key(settings, model)) for model in [spec["model"], *spec["fallback_models"]] if model]
    found = [
        Warned(code="model_key_missing", field="model", detail=f"{model} needs {key}, which is not set")
        for model, key in keys
        if key
    ]
    at_hand = offered(settings)
    found += [
        Warned(
            code="approval_unused",
            field=f"approval.{tool}",
            detail=f"the agent has no tool {tool}: its rule does nothing",
        )
        for tool in spec["approval"]
        if tool not in spec["tools"]
    ]
    return found + [
        Warned(code="tool_not_offered", field="tools", detail=f"{tool} is not offered with the present settings")
        for tool in spec["tools"]
        if tool in INSTALLED and tool not in at_hand
    ]


async def _served(caller: Caller, ref: str) -> AgentOut:
    async with caller.transaction() as session:
        agent = await agents.get(session, caller.workspace_id, ref)
        version = await agents.version_of(session, agent, agent.published_version)
        return show(agent, version, caller.settings)


@router.get("/agents", summary="List agents")
async def list_agents(
    caller: Reads,
    page: Annotated[PageOf, paged("agents")],
    archived: Annotated[bool, Query(description="Those that were deleted, instead of those in service.")] = False,
) -> Page[AgentOut]:
    """Agents with their published values, newest first."""
    async with caller.transaction() as session:
        rows = await agents.page(session, caller.workspace_id, after=page.after, limit=page.fetch, archived=archived)
        return page.cut(rows, lambda row: show(*row, caller.settings), key=lambda row: row[0].id)


@router.post("/agents", status_code=201, summary="Create an agent", openapi_extra={"requestBody": {"content": {
    "application/json": {"examples": {"reporter": {"value": EXAMPLE}}}}}})  # fmt: skip
async def create_agent(spec: AgentSpec, caller: Writes, key: Idempotent, response: Response) -> AgentOut:
    """Saves version 1 and publishes it."""
    return await _create(spec, caller, key, response, "agent.create")


@router.post("/agents/import", status_code=201, summary="Create an agent from YAML", openapi_extra={"requestBody": {
    "required": True, "content": {"application/yaml": {"schema": {"type": "string"},
    "example": "name: reporter\ninstructions: |\n  You write short reports.\ntools:\n- calculator\n"}}}})  # fmt: skip
async def import_agent(request: Request, caller: Writes, key: Idempotent, response: Response) -> AgentOut:
    """Takes what export gives, raw as `application/yaml`; a name that is taken is a duplicate."""
    return await _create(await _read(request), caller, key, response, "agent.import")


async def _read(request: Request) -> AgentSpec:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in YAML_TYPES:
        raise UnsupportedMediaType("send the YAML raw, as application/yaml")
    try:
        values = await asyncio.to_thread(agents.read_yaml, (await request.body()).decode())
        # YAML says more than JSON can: what is left must pass as a JSON body would.
        values = read_json(json.dumps(values).encode())
    except UnicodeDecodeError as error:
        raise MalformedBody("the body is not UTF-8") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise MalformedBody(f"the body holds what JSON has not: {error}") from error
    try:
        return AgentSpec.model_validate(values)
    except ValidationError as error:
        raise misfit(error, AgentSpec.model_fields) from error


async def _create(spec: AgentSpec, caller: Caller, key: Idempotent, response: Response, action: str) -> AgentOut:
    agent_id = new_id()
    async with caller.transaction() as session:
        if not (repeat := await key.claim(session, caller, "agent", agent_id)):
            await agents.create(session, caller.settings, caller.principal, spec, agent_id=agent_id)
            audit.record(session, caller.entry(action, "agent", agent_id, name=spec.name))
    agent = await _served(caller, repeat.id if repeat else str(agent_id))
    response.headers["Location"] = f"/agents/{agent.id}"
    return agent


@router.get("/agents/{agent}", summary="Show an agent")
async def get_agent(agent: str, caller: Reads) -> AgentOut:
    """The published values; `{agent}` is the id or the name."""
    return await _served(caller, agent)


@router.patch("/agents/{agent}", summary="Draft a change")
async def patch_agent(agent: str, changes: AgentPatch, caller: Writes) -> AgentOut:
    """Makes a draft: the newest version with the given fields replaced. It is served once it is published."""
    async with caller.transaction() as session:
        draft = await agents.patch(session, caller.settings, caller.principal, agent, changes)
        row = await agents.get(session, caller.workspace_id, str(draft.agent_id))
        audit.record(session, caller.entry("agent.patch", "agent", row.id, version=draft.version))
        return show(row, draft, caller.settings)


@router.put(
    "/agents/{agent}",
    summary="Apply an agent",
    responses={201: {"model": AppliedOut, "description": "Created."}},
    openapi_extra={"requestBody": {"content": {"application/json": {"examples": {"reporter": {"value": EXAMPLE}}}}}},
)
async def apply_agent(
    agent: str,
    fields: AgentApply,
    caller: Writes,
    response: Response,
    dry_run: Annotated[bool, Query(description="Check and compare alone.")] = False,
    publish: Annotated[bool, Query(description="Serve it; false leaves a draft.")] = True,
) -> AppliedOut:
    """Makes the agent of that name what the body says, and serves it: for agents that are kept as files.

    An agent that is that already stays as it is, without a new version. A new one is created and always served.
    """
    async with caller.transaction() as session:
        spec = await _whole(session, caller, agent, fields)
        done = await agents.apply(session, caller.settings, caller.principal, spec, publishes=publish, dry_run=dry_run)
        if done.version and done.applied is not Applied.UNCHANGED:
            version = {"version": done.version.version, "published": publish}
            audit.record(
                session, caller.entry("agent.apply", "agent", done.version.agent_id, name=spec.name, **version)
            )
    if done.applied is Applied.CREATED and not dry_run:
        response.status_code = 201
        response.headers["Location"] = f"/agents/{done.version.agent_id}" if done.version else ""
    return AppliedOut(
        applied=done.applied,
        dry_run=dry_run,
        version=done.version.version if done.version else None,
        changes=[ChangeOut.of(change) for change in done.changes],
        warnings=warnings_of(spec.model_dump(mode="json"), caller.settings),
    )


async def _whole(session: AsyncSession, caller: Caller, ref: str, fields: AgentApply) -> AgentSpec:
    """The spec that a body and the name in its path say."""
    try:
        name = (await agents.get(session, caller.workspace_id, ref)).name
    except NotFound:
        name = ref
    if fields.name not in (None, name):
        raise InvalidRequest(f"the path says {name!r}; a new name is given by PATCH", field="name")
    try:
        return AgentSpec.model_validate({**fields.model_dump(exclude_unset=True), "name": name})
    except ValidationError as error:
        raise misfit(error, AgentSpec.model_fields) from error


@router.delete("/agents/{agent}", status_code=204, summary="Delete an agent")
async def delete_agent(agent: str, caller: Writes) -> None:
    """Archives it: out of service, forgetting what it remembered. Its conversations stay readable; its name is free."""
    async with caller.transaction() as session:
        row = await agents.delete(session, caller.workspace_id, agent)
        audit.record(session, caller.entry("agent.delete", "agent", row.id, name=row.name))


@router.post("/agents/{agent}/unarchive", summary="Undo a deletion")
async def unarchive_agent(agent: str, caller: Writes, key: Idempotent) -> AgentOut:
    """Puts a deleted agent into service again, with the version it served; a name is that of the one deleted last."""
    async with caller.transaction() as session:
        if not (repeat := await key.claim(session, caller, "agent", agent)):
            row = await agents.unarchive(session, caller.workspace_id, agent)
            audit.record(session, caller.entry("agent.unarchive", "agent", row.id, name=row.name))
            version = await agents.version_of(session, row, row.published_version)
            return show(row, version, caller.settings)
    return await _served(caller, repeat.id)


@router.get("/agents/{agent}/versions", summary="List versions")
async def list_versions(agent: str, caller: Reads, page: Annotated[PageOf, paged("agent versions")]) -> Page[AgentOut]:
    """All versions of an agent, newest first."""
    async with caller.transaction() as session:
        row = await agents.get(session, caller.workspace_id, agent)
        rows = await agents.versions(session, row, before=page.number, limit=page.fetch)

        def shown(version: AgentVersion) -> AgentOut:
            return show(row, version, caller.settings).model_copy(update={"created_at": version.created_at})

        return page.cut(rows, shown, key=lambda each: each.version)


@router.get("/agents/{agent}/diff", summary="Compare versions")
async def diff_agent(
    agent: str,
    caller: Reads,
    before: Annotated[
        int | None, Query(alias="from", ge=1, le=2**31, description="The served one if left out.")
    ] = None,
    after: Annotated[int | None, Query(alias="to", ge=1, le=2**31, description="The newest if left out.")] = None,
) -> DiffOut:
    """What tells two versions apart, field by field."""
    async with caller.transaction() as session:
        first, second, found = await agents.compare(session, caller.workspace_id, agent, before, after)
        return DiffOut(
            before=first.version,
            after=second.version,
            before_published_at=first.published_at,
            after_published_at=second.published_at,
            changes=[ChangeOut.of(change) for change in found],
        )


@router.post("/agents/{agent}/publish", summary="Publish a version")
async def publish_agent(agent: str, caller: Writes, key: Idempotent, body: VersionBody | None = None) -> AgentOut:
    """Serves a version, the newest when none is named, to every run that starts from now on."""
    async with caller.transaction() as session:
        if not (repeat := await key.claim(session, caller, "agent", agent)):
            version = body.version if body else None
            chosen = await agents.publish(session, caller.settings, caller.workspace_id, agent, version)
            return await _chosen(caller, session, chosen, "agent.publish")
    return await _served(caller, repeat.id)


@router.post("/agents/{agent}/rollback", summary="Roll back")
async def rollback_agent(agent: str, caller: Writes, key: Idempotent, body: VersionBody | None = None) -> AgentOut:
    """Serves a version again that was published once; when none is named, the one published before the served one."""
    async with caller.transaction() as session:
        if not (repeat := await key.claim(session, caller, "agent", agent)):
            version = body.version if body else None
            chosen = await agents.rollback(session, caller.settings, caller.workspace_id, agent, version)
            return await _chosen(caller, session, chosen, "agent.rollback")
    return await _served(caller, repeat.id)


async def _chosen(caller: Caller, session: Any, version: AgentVersion, action: str) -> AgentOut:
    row = await agents.get(session, caller.workspace_id, str(version.agent_id))
    audit.record(session, caller.entry(action, "agent", row.id, version=version.version))
    return show(row, version, caller.settings)


@router.get(
    "/agents/{agent}/export",
    summary="Export as YAML",
    response_class=Response,
    responses={200: {"description": "The published values.", "content": {"application/yaml": {}}}},
)
async def export_agent(agent: str, caller: Reads) -> Response:
    """The published values as block YAML, for import elsewhere."""
    async with caller.transaction() as session:
        row = await agents.get(session, caller.workspace_id, agent)
        version = await agents.version_of(session, row, row.published_version)
    return Response(agents.dump_yaml(agents.read(version)), media_type="application/yaml")
