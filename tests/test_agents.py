"""Agents: what a version may hold, and which one is served."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app import agents
from app.agents import AgentPatch, AgentSpec
from app.agents.spec import check
from app.db import DEFAULT_WORKSPACE, Database
from app.errors import Conflict, Duplicate, InvalidRequest, NotAvailable, NotFound, ParleyError, RunFailed
from app.identity import LOCAL
from app.patterns import PATTERN_TOOLS
from app.settings import Settings
from app.tools import BUILT_IN


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    async with database.transaction(DEFAULT_WORKSPACE) as opened:
        yield opened


def spec(**values: Any) -> AgentSpec:
    return AgentSpec(**{"name": "reporter"} | values)


# --- what a version may hold ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({"model": "nonsense"}, "model", "invalid_model"),
        ({"fallback_models": ["demo", "what:ever"]}, "fallback_models.1", "invalid_model"),
        ({"tools": ["calculator", "teleport"]}, "tools.1", "unknown_reference"),
        ({"tools": ["delegate"]}, "tools.0", "not_available"),
        ({"delegates": ["assistant"]}, "delegates", "not_available"),
        ({"team": {}}, "team", "not_available"),
        (
            {"approval": {"calculator": {"policy": "ask", "expires_seconds": 0}}},
            "approval.calculator.expires_seconds",
            "invalid_request",
        ),
        ({"approval": {"calculator": {"policy": "ask", "until": 5}}}, "approval.calculator.until", "invalid_request"),
        ({"approval": {"calculator": "perhaps"}}, "approval.calculator", "invalid_request"),
        ({"approval": {"teleport": "deny"}}, "approval.teleport", "unknown_reference"),
        ({"instructions": "Hello {{ name"}, "instructions", "invalid_request"),
        ({"instructions": "{{ x | no_such_filter }}"}, "instructions", "invalid_request"),
        ({"instructions": "{{ ''.__class__.__mro__ }}"}, "instructions", "invalid_request"),
        ({"instructions": "{{ 'x' * 1000000000 }}"}, "instructions", "invalid_request"),
        ({"instructions": "{{ 'x'.ljust(1000000000) }}"}, "instructions", "invalid_request"),
        ({"output_schema": {"type": "objekt"}}, "output_schema", "invalid_request"),
        ({"output_schema": {"type": "string"}}, "output_schema", "invalid_request"),
        ({"input_schema": {"type": "object", "$ref": "http://example.com/x"}}, "input_schema", "invalid_request"),
    ],
)
def test_a_spec_that_can_not_work_is_refused_naming_the_field(values: Any, field: str, code: str) -> None:
    with pytest.raises(ParleyError) as refused:
        check(spec(**values), Settings.of(), BUILT_IN)
    assert (refused.value.field, refused.value.code, refused.value.status) == (field, code, 422)


@pytest.mark.parametrize("name", ["", "import", "a/b", " a", "a\n", "..", "0198c0de-0000-7000-8000-000000000001"])
def test_a_name_must_work_in_a_path(name: str) -> None:
    with pytest.raises(ValidationError):
        spec(name=name)


def test_model_settings_are_a_short_list() -> None:
    with pytest.raises(ValidationError, match="extra_headers"):
        spec(model_settings={"extra_headers": {"Authorization": "x"}})


def test_a_checked_spec_has_canonical_names() -> None:
    checked = check(spec(model="google-gla:gemini-3", tools=["calculator", "calculator"]), Settings.of(), BUILT_IN)
    assert checked.model == "google:gemini-3"
    assert checked.tools == ["calculator"]


def test_instructions_are_rendered_from_the_values_of_the_run() -> None:
    text = "You help {{ user.name|upper }}{% if context.vip %}, gladly{% endif %}.{{ missing.deeply }}"
    values = {"user": {"name": "Ann"}, "context": {"vip": True}}
    assert agents.render_instructions(text, values) == "You help ANN, gladly."
    assert agents.render_instructions("{ braces } stay", {}) == "{ braces } stay"


@pytest.mark.parametrize("text", ["{{ n / 0 }}", "{{ n.__class__ }}", "{% for a in l %}{{ a }}{% endfor %}"])
def test_instructions_that_stumble_fail_the_run(text: str) -> None:
    with pytest.raises(RunFailed, match="instructions"):
        agents.render_instructions(text, {"n": 1, "l": ["x" * 300_000] * 2})


def test_yaml_goes_round() -> None:
    whole = spec(instructions="One.\nTwo: {{ now }}\n", tools=["calculator"], limits={"requests": 3}, model="demo")
    text = agents.dump_yaml(whole)
    assert "instructions: |\n  One.\n" in text
    assert "- calculator" in text
    assert "{" not in text.replace("{{ now }}", "")
    assert AgentSpec.model_validate(agents.read_yaml(text)) == whole


@pytest.mark.parametrize(
    "text", ["a: [", "&a [*a]", "- name", "just text", "a: &x 1\nb: *x", "!!python/name:os.system"]
)
def test_yaml_that_is_no_plain_mapping_is_refused(text: str) -> None:
    with pytest.raises(ParleyError):
        agents.read_yaml(text)


# --- rows -------------------------------------------------------------------------------------------


async def test_the_default_agent_is_seeded_once(database: Database) -> None:
    await asyncio.gather(*(agents.seed(database) for _ in range(4)))
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        agent = await agents.get(session, DEFAULT_WORKSPACE, "assistant")
        spec = agents.read(await agents.version_of(session, agent, agent.published_version))
    assert (agent.published_version, spec.model) == (1, None)
    assert spec.tools == [name for name in BUILT_IN if name not in PATTERN_TOOLS]
    assert await database.fetchval("select count(*) from agent_versions") == 1


async def test_drafts_are_served_only_when_published(session: AsyncSession, settings: Settings) -> None:
    agent = await agents.create(session, settings, LOCAL, spec(instructions="one"))
    draft = await agents.patch(session, settings, LOCAL, "reporter", AgentPatch(instructions="two"))
    assert (draft.version, agent.published_version, agent.latest_version) == (2, 1, 2)
    again = await agents.patch(session, settings, LOCAL, str(agent.id), AgentPatch(instructions="two"))
    assert again.version == 2
    assert (await agents.publish(session, settings, DEFAULT_WORKSPACE, "reporter")).version == 2
    assert (await agents.rollback(session, settings, DEFAULT_WORKSPACE, "reporter")).version == 1
    with pytest.raises(Conflict):
        await agents.rollback(session, settings, DEFAULT_WORKSPACE, "reporter")
    with pytest.raises(InvalidRequest) as unknown:
        await agents.publish(session, settings, DEFAULT_WORKSPACE, "reporter", 9)
    assert unknown.value.field == "version"
    await session.refresh(agent)
    for version, text in ((agent.published_version, "one"), (2, "two")):
        assert agents.read(await agents.version_of(session, agent, version)).instructions == text


async def test_a_name_is_taken_once_and_free_after_a_delete(database: Database, settings: Settings) -> None:
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await agents.create(session, settings, LOCAL, spec())
    with pytest.raises(Duplicate):
        async with database.transaction(DEFAULT_WORKSPACE) as session:
            await agents.create(session, settings, LOCAL, spec())
    async with database.transaction(DEFAULT_WORKSPACE) as session:
        await agents.delete(session, DEFAULT_WORKSPACE, "reporter")
        with pytest.raises(NotFound):
            await agents.get(session, DEFAULT_WORKSPACE, "reporter")
        await agents.create(session, settings, LOCAL, spec())


async def test_a_new_name_is_in_force_when_published(session: AsyncSession, settings: Settings) -> None:
    await agents.create(session, settings, LOCAL, spec())
    await agents.patch(session, settings, LOCAL, "reporter", AgentPatch(name="writer"))
    await agents.publish(session, settings, DEFAULT_WORKSPACE, "reporter")
    assert (await agents.get(session, DEFAULT_WORKSPACE, "writer")).published_version == 2
    await agents.patch(session, settings, LOCAL, "writer", AgentPatch(name="assistant"))
    with pytest.raises(Duplicate):
        await agents.publish(session, settings, DEFAULT_WORKSPACE, "writer")


async def test_the_default_agent_stays(session: AsyncSession) -> None:
    with pytest.raises(Conflict):
        await agents.delete(session, DEFAULT_WORKSPACE, "assistant")


async def test_later_fields_are_refused_by_patches_too(session: AsyncSession, settings: Settings) -> None:
    with pytest.raises(NotAvailable):
        await agents.patch(session, settings, LOCAL, "assistant", AgentPatch(delegates=["assistant"]))
