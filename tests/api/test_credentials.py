"""/credentials: secrets go in and never come out, whatever is asked or breaks."""

import asyncio
import base64
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from app.cli.checks import run_checks
from app.credentials import Box
from app.credentials.rotation import check, keep_canaries, rotate
from app.db import Database
from app.executor import Engine
from app.settings import Settings
from tests.api.conftest import serve

OAUTH = {"grant": "client_credentials", "token_url": "https://id.example/token", "client_id": "parley"}
GIVEN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "api_key": ({"value": "sk-the-secret-abcd", "in": "query", "key": "appid"}, ["sk-the-secret-abcd"]),
    "bearer": ({"token": "token-the-secret-abcd"}, ["token-the-secret-abcd"]),
    "basic": ({"username": "me", "password": "pass-the-secret-abcd"}, ["pass-the-secret-abcd"]),
    "oauth2": (OAUTH | {"client_secret": "client-the-secret-abcd", "scopes": ["a", "b"]}, ["client-the-secret-abcd"]),
    "headers": ({"headers": {"X-One": "head-the-secret-abcd", "X-Two": "short"}}, ["head-the-secret-abcd", "short"]),
}
BEARER = {"name": "b", "kind": "bearer", "token": "token-the-secret-abcd"}
ROW = "select * from credentials where name = $1"


@pytest.mark.parametrize("kind", GIVEN)
async def test_a_credential_shows_only_the_ends_of_its_secrets(
    client: httpx.AsyncClient, database: Database, kind: str
) -> None:
    fields, secrets = GIVEN[kind]
    made = await client.post("/credentials", json={"name": "mine", "kind": kind} | fields)
    assert made.status_code == 201, made.text
    said = made.text
    for path in ("/credentials", "/credentials/mine", made.headers["Location"], "/audit"):
        said += (await client.get(path)).text
    shown = made.json()
    said += str(dict((await database.fetchrow(ROW, "mine")) or {}))
    assert [secret for secret in secrets if secret in said] == []
    assert "****abcd" in said
    assert shown["state"] == "readable"
    # What was shown can be sent back, and changes nothing.
    again = {name: shown[name] for name in fields}
    assert (await client.patch("/credentials/mine", json=again)).status_code == 200
    row = await database.fetchrow(ROW, "mine")
    assert row
    assert row["token_no"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (BEARER | {"token": None}, "token"),
        (BEARER | {"username": "x"}, "username"),
        (BEARER | {"kind": "password"}, "kind"),
        (BEARER | {"name": "no spaces"}, "name"),
        (BEARER | {"token": "a\r\nX-Evil: 1"}, "token"),
        (BEARER | {"token": "****abcd"}, "token"),
        ({"name": "o", "kind": "oauth2", **OAUTH}, None),
        ({"name": "h", "kind": "headers", "headers": {"X Y": "v"}}, "headers"),
    ],
)
async def test_a_wrong_credential_is_refused_by_field_without_its_value(
    client: httpx.AsyncClient, body: dict[str, Any], field: str | None
) -> None:
    refused = await client.post("/credentials", json=body)
    assert refused.status_code == 422, refused.text
    if field:
        assert refused.json()["field"].startswith(field)
    assert "the-secret" not in refused.text
    assert "Evil" not in refused.text


async def test_changing_and_deleting(client: httpx.AsyncClient, database: Database) -> None:
    await client.post("/credentials", json=BEARER)
    assert (await client.post("/credentials", json=BEARER)).status_code == 409
    changed = await client.patch("/credentials/b", json={"name": "c", "token": "another-secret-wxyz"})
    assert (changed.json()["name"], changed.json()["token"]) == ("c", "****wxyz")
    refused = await client.patch("/credentials/c", json={"token": "****zzzz"})
    assert refused.status_code == 422
    assert (await client.delete("/credentials/c")).status_code == 204
    assert (await client.get("/credentials/c")).status_code == 404
    assert await database.fetchval("select count(*) from credentials") == 0


async def test_a_header_keeps_its_value_beside_a_new_one(client: httpx.AsyncClient) -> None:
    headers = {"X-One": "head-the-secret-abcd", "X-Two": "head-the-secret-efgh"}
    await client.post("/credentials", json={"name": "h", "kind": "headers", "headers": headers})
    changed = await client.patch(
        "/credentials/h", json={"headers": {"X-One": "****abcd", "X-Two": "head-the-secret-ijkl"}}
    )
    assert changed.json()["headers"] == {"X-One": "****abcd", "X-Two": "****ijkl"}


def keys(*names: str) -> SecretStr:
    known = {"k1": bytes(32), "k2": bytes([2]) * 32, "wrong": bytes([3]) * 32}
    pairs = [(name.partition("=")[0], known[name.rpartition("=")[2]]) for name in names]
    return SecretStr(",".join(f"{name}:{base64.b64encode(key).decode()}" for name, key in pairs))


def with_keys(settings: Settings, *names: str) -> Settings:
    return settings.model_copy(update={"parley_encryption_keys": keys(*names)})


@pytest.mark.parametrize("names", [("k2",), ("k1=wrong",)])
async def test_without_its_key_a_credential_is_unreadable_and_everything_else_works(
    client: httpx.AsyncClient, settings: Settings, names: tuple[str, ...]
) -> None:
    await client.post("/credentials", json=BEARER)
    async with serve(with_keys(settings, *names)) as other:
        shown = (await other.get("/credentials/b")).json()
        assert (shown["state"], shown["token"]) == ("unreadable", "****abcd")
        assert "key" in shown["reason"]
        assert (await other.get("/readyz")).status_code == 200
        anew = await other.patch("/credentials/b", json={"token": "a-new-secret-wxyz"})
        assert anew.json()["state"] == "readable"


async def test_an_unreadable_credential_tells_who_needs_it(
    client: httpx.AsyncClient, settings: Settings, database: Database
) -> None:
    await client.post("/credentials", json=BEARER)
    await client.post("/credentials", json=BEARER | {"name": "idle"})
    forecast = {"kind": "http", "name": "forecast", "description": "The weather", "url": "https://x.example/w"}
    assert (await client.post("/tools", json=forecast | {"credential": "b"})).status_code == 201
    for name in ("sailor", "farmer"):
        await client.post("/agents", json={"name": name, "tools": ["forecast"]})
    assert (await client.get("/credentials/b")).json()["needed_by"] is None
    needed = {"tools": ["forecast"], "agents": ["farmer", "sailor"]}
    other_keys = with_keys(settings, "k2")
    async with serve(other_keys) as other:
        assert (await other.get("/credentials/b")).json()["needed_by"] == needed
        listed = (await other.get("/credentials")).json()["items"]
        assert {each["name"]: each["needed_by"] for each in listed} == {
            "b": needed,
            "idle": {"tools": [], "agents": []},
        }
    checks = {check.detail.split()[0]: check for check in await run_checks(other_keys) if check.name == "credentials"}
    assert (checks["b"].state, checks["idle"].state) == ("broken", "warning")
    assert "forecast" in checks["b"].detail
    assert "farmer, sailor" in checks["b"].detail
    (fine,) = [check for check in await run_checks(settings) if check.name == "credentials"]
    assert fine.state == "ok"


async def test_a_canary_tells_a_wrong_key(client: httpx.AsyncClient, settings: Settings, database: Database) -> None:
    assert await keep_canaries(database, Box.from_settings(settings)) == []
    assert await keep_canaries(database, Box.from_settings(with_keys(settings, "k2", "k1"))) == []
    [wrong] = await keep_canaries(database, Box.from_settings(with_keys(settings, "k1=wrong")))
    assert "'k1' is not the one" in wrong
    assert await database.fetchval("select count(*) from canaries") == 2


@pytest.mark.parametrize("kind", ["api", "worker"])
async def test_each_process_tells_at_its_start_that_a_key_is_missing(
    client: httpx.AsyncClient, settings: Settings, database: Database, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    await client.post("/credentials", json=BEARER)
    assert await keep_canaries(database, Box.from_settings(settings)) == []
    without = with_keys(settings, "k2")
    async with Engine.open(without, kind=kind), asyncio.timeout(5):
        while not (said := [each for each in caplog.messages if "encryption.key_is_wrong" in each]):
            await asyncio.sleep(0.01)
    assert "the key 'k1' is not in PARLEY_ENCRYPTION_KEYS, and sealed 1 of the stored secrets" in said[0]
    found = [check for check in await run_checks(without) if check.name == "encryption keys"]
    assert ("broken", True) in [(check.state, "'k1'" in check.detail) for check in found]


async def test_a_key_that_was_rotated_away_may_go(
    client: httpx.AsyncClient, settings: Settings, database: Database
) -> None:
    await client.post("/credentials", json=BEARER)
    assert await keep_canaries(database, Box.from_settings(settings)) == []
    both = Box.from_settings(with_keys(settings, "k2", "k1"))
    assert await tally(rotate(database, both)) == (1, 1, 0)
    assert await keep_canaries(database, Box.from_settings(with_keys(settings, "k2"))) == []
    assert [row["key_id"] for row in await database.fetch("select key_id from canaries")] == ["k2"]


async def tally(steps: Any) -> tuple[int, int, int]:
    last = [step async for step in steps][-1]
    return last.sealed, last.moved, last.unreadable


async def test_rotation_seals_everything_anew_and_can_be_stopped(
    client: httpx.AsyncClient, settings: Settings, database: Database
) -> None:
    for number in range(5):
        await client.post("/credentials", json=BEARER | {"name": f"b{number}"})
    url = {"channels": ["slack"], "slack_webhook_url": "https://hooks.slack.com/services/T0/B0/secret"}
    task = {"prompt": "Go", "notification_config": url, "schedule_expression": "@yearly", "task_type": "scheduled"}
    hook = {"prompt": "Go", "task_type": "triggered", "trigger_config": {"verifier": "bearer", "secret": "a" * 30}}
    for body in (task, hook):
        assert (await client.post("/tasks", json=body)).status_code == 201
    both, new = (Box.from_settings(with_keys(settings, *names)) for names in (("k2", "k1"), ("k2",)))
    assert await tally(check(database, new)) == (7, 0, 7)
    async for step in rotate(database, both, batch=2):
        assert step.moved == 2
        break
    assert await tally(rotate(database, both, batch=2)) == (7, 5, 0)
    assert await tally(rotate(database, both)) == (7, 0, 0)
    assert await tally(check(database, new)) == (7, 0, 0)
