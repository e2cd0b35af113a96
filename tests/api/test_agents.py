"""/agents over HTTP."""

import asyncio
from typing import Any
from uuid import UUID

import httpx
import yaml

from app.db import Database
from app.executor import Engine
from app.settings import Settings
from workers.resident import Resident


async def test_an_agent_from_draft_to_delete(client: httpx.AsyncClient) -> None:
    made = await client.post("/agents", json={"name": "reporter", "instructions": "one", "tools": ["calculator"]})
    assert made.status_code == 201
    agent = made.json()
    assert made.headers["location"] == f"/agents/{agent['id']}"
    assert (agent["version"], agent["status"], agent["model"]) == (1, "published", None)

    draft = (await client.patch("/agents/reporter", json={"instructions": "two"})).json()
    assert (draft["version"], draft["status"], draft["instructions"]) == (2, "draft", "two")
    assert draft["tools"] == ["calculator"]
    shown = (await client.get(f"/agents/{agent['id']}")).json()
    assert (shown["version"], shown["latest_version"], shown["instructions"]) == (1, 2, "one")

    assert (await client.post("/agents/reporter/publish", json={"version": 2})).json()["instructions"] == "two"
    assert (await client.get("/agents/reporter")).json()["published_version"] == 2
    assert (await client.post("/agents/reporter/rollback", json={"version": 1})).json()["instructions"] == "one"
    again = await client.post("/agents/reporter/rollback")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    unknown = await client.post("/agents/reporter/publish", json={"version": 7})
    assert (unknown.status_code, unknown.json()["field"]) == (422, "version")

    versions = (await client.get("/agents/reporter/versions?limit=1")).json()
    assert [each["version"] for each in versions["items"]] == [2]
    rest = await client.get("/agents/reporter/versions", params={"cursor": versions["next_cursor"]})
    assert [each["version"] for each in rest.json()["items"]] == [1]
    assert rest.json()["next_cursor"] is None

    assert (await client.delete("/agents/reporter")).status_code == 204
    assert (await client.get("/agents/reporter")).status_code == 404
    assert (await client.delete("/agents/reporter")).status_code == 404


async def test_export_and_import_carry_yaml(client: httpx.AsyncClient) -> None:
    spec = {"name": "reporter", "instructions": "First.\nSecond {{ today }}.\n", "limits": {"requests": 3}}
    await client.post("/agents", json=spec)
    exported = await client.get("/agents/reporter/export")
    assert exported.headers["content-type"].startswith("application/yaml")
    assert exported.text.startswith("name: reporter\ninstructions: |\n  First.\n")
    assert yaml.safe_load(exported.text)["limits"] == {"requests": 3}

    body = exported.text.replace("reporter", "copy")
    made = await client.post("/agents/import", content=body, headers={"content-type": "application/yaml"})
    assert made.status_code == 201
    assert (await client.get("/agents/copy")).json()["instructions"] == spec["instructions"]


async def test_imports_are_refused_like_bodies(client: httpx.AsyncClient) -> None:
    kind = {"content-type": "application/yaml"}
    for body, status, code, field in [
        ("name: x\nsystem_prompt: y\n", 422, "unknown_field", "system_prompt"),
        ("name: assistant\n", 409, "duplicate", "name"),
        ("name: [", 400, "malformed_body", None),
        ("- a\n", 422, "invalid_request", "body"),
        ('name: "a\\0b"\n', 422, "forbidden_text", "name"),
        ("name: x\nteam: {}\n", 422, "not_available", "team"),
        (f"name: x\ninput_schema: {{type: object, default: {10**400}}}\n", 400, "malformed_body", None),
        ("name: x\ninput_schema: {type: object, default: .inf}\n", 400, "malformed_body", None),
        ("name: x\ninput_schema: {type: object, default: !!binary aGk=}\n", 400, "malformed_body", None),
        ("", 422, "invalid_request", "body"),
    ]:
        answer = await client.post("/agents/import", content=body, headers=kind)
        assert (answer.status_code, answer.json()["code"], answer.json().get("field")) == (status, code, field), body
    wrong = await client.post("/agents/import", json={"name": "x"})
    assert (wrong.status_code, wrong.json()["code"]) == (415, "unsupported_media_type")
    latin = await client.post("/agents/import", content=b"name: \xff", headers=kind)
    assert latin.status_code == 400


async def test_the_default_agent_is_there_and_stays(client: httpx.AsyncClient) -> None:
    shown = (await client.get("/agents/assistant")).json()
    assert "calculator" in shown["tools"]
    assert {"code": "tool_not_offered", "field": "tools"}.items() <= shown["warnings"][0].items()
    assert (await client.delete("/agents/assistant")).status_code == 409


async def test_a_model_without_its_key_is_saved_with_a_warning(client: httpx.AsyncClient) -> None:
    made = (await client.post("/agents", json={"name": "x", "model": "openai:gpt-6.1-terra"})).json()
    assert [each["code"] for each in made["warnings"]] == ["model_key_missing"]
    assert "OPENAI_API_KEY" in made["warnings"][0]["detail"]


async def test_pages_hold_every_agent_once(client: httpx.AsyncClient) -> None:
    for number in range(5):
        await client.post("/agents", json={"name": f"agent {number}"})
    names: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/agents", params=params)).json()
        names += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert names == [*(f"agent {number}" for number in reversed(range(5))), "assistant"]
    assert (await client.get("/agents/agent%203")).json()["name"] == "agent 3"


# --- applying and comparing -----------------------------------------------------------------------------------


async def applied(client: httpx.AsyncClient, name: str, body: dict[str, Any], **query: Any) -> dict[str, Any]:
    answer = await client.put(f"/agents/{name}", json=body, params=query)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()


async def test_applying_creates_updates_and_then_changes_nothing(client: httpx.AsyncClient) -> None:
    body = {"name": "reporter", "instructions": "one", "tools": ["calculator"]}
    made = await client.put("/agents/reporter", json=body)
    assert (made.status_code, made.json()["applied"], made.json()["version"]) == (201, "created", 1)
    shown = (await client.get(made.headers["location"])).json()
    assert (shown["name"], shown["tools"]) == ("reporter", ["calculator"])

    again = await applied(client, "reporter", body)
    assert (again["applied"], again["version"], again["changes"]) == ("unchanged", 1, [])
    body = {"instructions": "two", "limits": {"requests": 3}}
    changed = await applied(client, "reporter", body)
    assert (changed["applied"], changed["version"]) == ("updated", 2)
    assert {each["field"]: each["lines"] for each in changed["changes"]} == {
        "instructions": ["-one", "+two"],
        "tools": ["-calculator"],
        "limits.requests": ["-50", "+3"],
    }
    assert (await applied(client, "reporter", body))["applied"] == "unchanged"
    shown = (await client.get("/agents/reporter")).json()
    assert (shown["version"], shown["latest_version"], shown["tools"]) == (2, 2, [])


async def test_a_dry_run_checks_and_stores_nothing(client: httpx.AsyncClient) -> None:
    told = await applied(client, "reporter", {"instructions": "one"}, dry_run=True)
    assert (told["applied"], told["dry_run"], told["version"]) == ("created", True, None)
    assert [each["field"] for each in told["changes"]] == ["instructions", "name"]
    assert (await client.get("/agents/reporter")).status_code == 404
    await applied(client, "reporter", {"instructions": "one"})
    told = await applied(client, "reporter", {"instructions": "two"}, dry_run=True)
    assert (told["applied"], told["version"]) == ("updated", None)
    refused = await client.put("/agents/reporter", json={"tools": ["teleport"]}, params={"dry_run": True})
    assert (refused.status_code, refused.json()["field"]) == (422, "tools.0")
    assert (await client.get("/agents/reporter")).json()["latest_version"] == 1


async def test_a_draft_is_applied_and_then_published(client: httpx.AsyncClient) -> None:
    await applied(client, "reporter", {"instructions": "one"})
    two = {"instructions": "two"}
    assert (await applied(client, "reporter", two, publish=False))["version"] == 2
    assert (await applied(client, "reporter", two, publish=False))["applied"] == "unchanged"
    assert (await client.get("/agents/reporter")).json()["version"] == 1
    published = await applied(client, "reporter", two)
    assert (published["applied"], published["version"]) == ("updated", 2)
    assert [each["lines"] for each in published["changes"]] == [["-one", "+two"]]
    shown = (await client.get("/agents/reporter")).json()
    assert (shown["version"], shown["latest_version"]) == (2, 2)


async def test_applying_is_refused_like_creating(client: httpx.AsyncClient) -> None:
    for name, body, status, code, field in [
        ("x", {"name": "y"}, 422, "invalid_request", "name"),
        ("import", {}, 422, "invalid_request", "name"),
        ("x", {"system_prompt": "y"}, 422, "unknown_field", "system_prompt"),
        ("x", {"model_settings": {"extra_headers": {}}}, 422, "unknown_field", "model_settings.extra_headers"),
        ("x", {"limits": {"requests": 0}}, 422, "invalid_request", "limits.requests"),
    ]:
        answer = await client.put(f"/agents/{name}", json=body)
        assert (answer.status_code, answer.json()["code"], answer.json().get("field")) == (status, code, field), body


async def test_versions_are_compared_field_by_field(client: httpx.AsyncClient) -> None:
    text = "One.\nTwo.\nThree.\nFour.\n"
    await client.post("/agents", json={"name": "reporter", "instructions": text, "tools": ["calculator"]})
    changes = {"instructions": text.replace("Four", "Five"), "tools": ["notify"], "model_settings": {"seed": 1}}
    await client.patch("/agents/reporter", json={**changes, "approval": {"notify": "ask"}})
    diff = (await client.get("/agents/reporter/diff")).json()
    assert (diff["before"], diff["after"]) == (1, 2)
    found = {each["field"]: each for each in diff["changes"]}
    assert found["instructions"]["lines"] == [" Two.", " Three.", "-Four.", "+Five."]
    assert found["tools"] == {
        "field": "tools",
        "before": ["calculator"],
        "after": ["notify"],
        "lines": ["-calculator", "+notify"],
    }
    assert found["model_settings.seed"]["lines"] == ["+1"]
    assert found["approval.notify"]["lines"] == ["+ask"]
    assert len(found) == 4
    back = (await client.get("/agents/reporter/diff", params={"from": 2, "to": 1})).json()
    assert {each["field"] for each in back["changes"]} == set(found)
    assert (await client.get("/agents/reporter/diff?from=2&to=2")).json()["changes"] == []
    for query, field in ({"from": 9}, "from"), ({"to": 9}, "to"), ({"from": 0}, "from"):
        refused = await client.get("/agents/reporter/diff", params=query)
        assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert (await client.get("/agents/nobody/diff")).status_code == 404


async def test_an_input_is_looked_at_again_when_its_run_begins(
    client: httpx.AsyncClient, settings: Settings, database: Database
) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    schema = {"type": "object", "properties": {"numbers": numbers}, "required": ["numbers"]}
    await client.post("/agents", json={"name": "adder", "input_schema": schema})
    task = {"task_type": "delegation", "prompt": "Add them.", "agent": "adder", "input": {"numbers": [1, 2]}}
    expected = [
        ({"numbers": [1, 2]}, "completed", None),
        ({"numbers": [1, "two"]}, "failed", "input.numbers.1: 'two' is not of type 'integer'"),
        ({}, "failed", "input: 'numbers' is a required property"),
    ]
    made = [(await client.post("/tasks", json=task)).json() for _ in expected]
    for one, (given, _, _) in zip(made, expected, strict=True):
        await database.execute("update tasks set input = $2 where id = $1", UUID(one["id"]), given)
    async with Engine.open(settings, kind="worker") as engine:
        resident = Resident(engine)
        resident.start()
        for one, (_, state, said) in zip(made, expected, strict=True):
            run = await ended(client, one["latest_run"]["id"])
            assert (run["state"], run["error"] and run["error"]["message"]) == (state, said)
        await resident.stop()


async def ended(client: httpx.AsyncClient, run_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (run := (await client.get(f"/runs/{run_id}")).json())["state"] in ("queued", "running"):
            await asyncio.sleep(0.02)
    return run


async def test_a_stored_agent_names_no_shell_no_path_and_no_server(client: httpx.AsyncClient) -> None:
    """Only what is listed can be said of an agent; whatever else is refused with the field's name."""
    for body, field in [
        ({"tools": ["bash"]}, "tools.0"),
        ({"tools": ["/bin/sh"]}, "tools.0"),
        ({"tools": [{"mcp": {"url": "http://example.com"}}]}, "tools.0"),
        ({"mcp_servers": [{"command": "sh"}]}, "mcp_servers"),
        ({"toolsets": ["file:///etc"]}, "toolsets"),
        ({"capabilities": [{"LocalShell": {}}]}, "capabilities.0"),
        ({"model_settings": {"extra_body": {"a": 1}}}, "model_settings.extra_body"),
        ({"model_settings": {"extra_headers": {"a": "b"}}}, "model_settings.extra_headers"),
        ({"model": "openai:x@http://example.com"}, "model"),
        ({"model": "http://example.com/v1"}, "model"),
        ({"fallback_models": ["demo", "file:/etc/passwd"]}, "fallback_models.1"),
        ({"output_schema": {"type": "object", "$ref": "file:///etc/passwd"}}, "output_schema"),
        ({"instructions": "{% include '/etc/passwd' %}"}, "instructions"),
        ({"instructions": "{% import 'os' as os %}"}, "instructions"),
        ({"limits": {"tool_calls": -1}}, "limits.tool_calls"),
        ({"limits": {"seconds": 0}}, "limits.seconds"),
        ({"limits": {"wall": 3}}, "limits.wall"),
        ({"approval": {"calculator": "maybe"}}, "approval.calculator"),
        ({"delegates": ["nobody"]}, "delegates"),
    ]:
        for refused in (
            await client.post("/agents", json={"name": "x", **body}),
            await client.put("/agents/x", json=body),
            await client.patch("/agents/assistant", json=body),
        ):
            assert (refused.status_code, refused.json().get("field", "")[: len(field)]) == (422, field), refused.text


async def test_a_rule_for_a_tool_that_the_agent_has_not_is_a_warning(client: httpx.AsyncClient) -> None:
    body = {"name": "x", "tools": ["calculator"], "approval": {"calculator": "ask", "notify": "ask"}}
    warnings = (await client.post("/agents", json=body)).json()["warnings"]
    assert [(each["code"], each["field"]) for each in warnings] == [("approval_unused", "approval.notify")]
