"""/agents over HTTP."""

import httpx
import yaml


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
