"""Files: what may be uploaded, and that a download can do nothing in a browser."""

from typing import Any
from uuid import UUID

import httpx
import pytest
from pydantic import SecretStr

from app.api.artifacts import disposition
from app.db import Database
from app.settings import Settings
from app.tools import ToolContext
from tests.api.conftest import ADMIN_KEY, bearer, serve
from tests.engine import tool, tools


async def upload(client: httpx.AsyncClient, content: bytes = b"a,b\n1,2\n", **headers: str) -> httpx.Response:
    return await client.post("/artifacts", files={"file": ("numbers.csv", content, "text/csv")}, headers=headers)


async def test_what_was_uploaded_comes_back_as_it_was(client: httpx.AsyncClient) -> None:
    content = bytes(range(256)) * 40 + b"\r\n--not the boundary\r\n\n"
    made = await upload(client, content)
    assert made.status_code == 201, made.text
    shown = made.json()
    assert (shown["name"], shown["media_type"], shown["size"]) == ("numbers.csv", "text/csv", len(content))
    assert made.headers["Location"] == f"/artifacts/{shown['id']}"
    assert (await client.get(f"/artifacts/{shown['id']}")).json() == shown
    got = await client.get(f"/artifacts/{shown['id']}/content")
    assert got.content == content


async def test_a_download_is_neither_shown_nor_run(client: httpx.AsyncClient) -> None:
    page = {"file": ("x.html", b"<script>alert(1)</script>", "text/html")}
    made = (await client.post("/artifacts", files=page, data={"name": 'Übung "1".html'})).json()
    assert made["name"] == 'Übung "1".html'
    headers = (await client.get(f"/artifacts/{made['id']}/content")).headers
    assert headers["content-type"].startswith("text/html")
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in headers["content-security-policy"]
    assert headers["content-disposition"] == (
        "attachment; filename=\"_bung _1_.html\"; filename*=UTF-8''%C3%9Cbung%20%221%22.html"
    )


def test_no_name_breaks_out_of_its_header() -> None:
    assert "\n" not in disposition('a"\r\nSet-Cookie: x')
    assert disposition('a"\\;b').startswith('attachment; filename="a___b";')


@pytest.mark.parametrize(
    ("files", "data", "field"),
    [
        ({"other": ("x", b"1")}, {}, "file"),
        ({"file": ("x", b"1", "no type")}, {}, None),
        ({"file": ("x", b"1", "text/plain")}, {"name": "../../etc/passwd"}, "name"),
        ({"file": ("x", b"1", "text/plain")}, {"name": ".."}, "name"),
        ({"file": ("x", b"1", "text/plain")}, {"name": "a\nb"}, "name"),
        ({"file": ("x", b"1", "text/plain")}, {"name": "a" * 201}, "name"),
        ({"file": ("x", b"1", "text/plain")}, {"name": "a\x00b"}, "name"),
    ],
)
async def test_what_is_wrong_with_an_upload_is_named(
    client: httpx.AsyncClient, files: Any, data: dict[str, str], field: str | None
) -> None:
    refused = await client.post("/artifacts", files=files, data=data)
    assert refused.status_code == 422 or field is None, refused.text
    assert refused.status_code < 500
    if field:
        assert field in refused.text


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"--x\r\n\r\n--x--", 400),
        ("multipart/form-data; boundary=x", b"nothing", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n1\r\n--x--\r\n", 400),
        ("multipart/form-data; boundary=x", b"", 400),
    ],
)
async def test_what_is_no_form_is_refused(client: httpx.AsyncClient, kind: str, body: bytes, status: int) -> None:
    refused = await client.post("/artifacts", content=body, headers={"Content-Type": kind})
    assert refused.status_code == status, refused.text
    assert refused.headers["content-type"] == "application/problem+json"


async def test_too_large_is_413(settings: Settings) -> None:
    async with serve(settings.model_copy(update={"parley_artifact_bytes": 2000})) as client:
        assert (await upload(client, b"x" * 2000)).status_code == 201
        refused = await upload(client, b"x" * 2001)
    assert refused.status_code == 413
    assert "2000" in refused.text


async def test_a_repeated_upload_makes_one_file(client: httpx.AsyncClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\nhello\r\n--x--\r\n'
    headers = {"Idempotency-Key": "once", "Content-Type": "multipart/form-data; boundary=x"}
    first, again = [(await client.post("/artifacts", content=body, headers=headers)).json() for _ in range(2)]
    assert first["id"] == again["id"]
    assert (first["name"], first["media_type"], first["size"]) == ("a.txt", "application/octet-stream", 5)


async def test_unknown_ids_are_404_and_scopes_hold(client: httpx.AsyncClient, settings: Settings) -> None:
    unknown = "00000000-0000-7000-8000-00000000dead"
    for path in (f"/artifacts/{unknown}", f"/artifacts/{unknown}/content"):
        assert (await client.get(path)).status_code == 404
    update: dict[str, Any] = {"parley_auth": "on", "parley_admin_key": SecretStr(ADMIN_KEY)}
    async with serve(settings.model_copy(update=update)) as guarded:
        body = {"name": "reader", "scopes": ["artifacts:read"]}
        key = (await guarded.post("/keys", json=body, headers=bearer(ADMIN_KEY))).json()["key"]
        assert (await upload(guarded, **bearer(key))).status_code == 403
        assert (await upload(guarded, **bearer(ADMIN_KEY))).status_code == 201


async def test_a_tool_called_by_hand_keeps_files_of_the_workspace(
    client: httpx.AsyncClient, database: Database
) -> None:
    async def draw(context: ToolContext, arguments: dict[str, Any]) -> Any:
        return await context.keep(arguments.get("name", "chart.svg"), "image/svg+xml", b"<svg/>")

    async def tell(context: ToolContext, arguments: dict[str, Any]) -> Any:
        del context, arguments
        return "x" * 70_000

    async with tools(tool("draw", draw), tool("tell", tell)):
        drawn = (await client.post("/tools/draw/execute", json={})).json()
        told = (await client.post("/tools/tell/execute", json={})).json()
        failed = (await client.post("/tools/draw/execute", json={"arguments": {"name": "../x"}})).json()
    assert "without a slash" in failed["error"]
    shown = (await client.get(f"/artifacts/{drawn['result']['artifact_id']}")).json()
    assert (shown["name"], shown["size"], shown["conversation_id"]) == ("chart.svg", 6, None)
    rows = await database.fetch("select tool, artifact_id from tool_calls order by id")
    assert [row["tool"] for row in rows] == ["draw", "tell", "draw"]
    assert str(rows[0]["artifact_id"]) == shown["id"]
    assert told["result"].endswith(f"[the whole result is the artifact {rows[1]['artifact_id']}]")
    assert rows[2]["artifact_id"] is None


async def test_the_steps_of_a_run_name_its_files(client: httpx.AsyncClient, database: Database) -> None:
    run = (await client.post("/runs", json={"message": "What is 2+2?"})).json()["run_id"]
    artifact = (await upload(client)).json()["id"]
    await database.execute("update tool_calls set artifact_id = $1 where run_id = $2", UUID(artifact), UUID(run))
    steps = (await client.get(f"/runs/{run}/steps")).json()["items"]
    assert [step["artifact_id"] for step in steps if step["kind"] == "tool"] == [artifact]
