"""Webhook calls over a real socket: who signs is let in, everything else is refused as if there were no webhook."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from app.db import Database
from tests.senders import BODY, SECRETS, SIGN, config_of, signed

NOBODY = "019a0000-0000-7000-8000-000000000000"
SIGNERS = ("standard", "github", "stripe", "slack", "hmac")


@pytest.fixture
async def live(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application behind a real server on loopback."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
        yield client
    server.should_exit = True
    await serving


async def create(client: httpx.AsyncClient, config: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"task_type": "triggered", "prompt": "Say what happened.", "trigger_config": config, **fields}
    made = await client.post("/tasks", json=body)
    assert made.status_code == 201, made.text
    return made.json()


async def call(
    client: httpx.AsyncClient, task: dict[str, Any], headers: dict[str, str], body: bytes = BODY, **more: Any
) -> httpx.Response:
    return await client.post(f"/tasks/webhooks/{task['id']}", content=body, headers=headers, **more)


async def receipts(client: httpx.AsyncClient, task: dict[str, Any]) -> list[dict[str, Any]]:
    return (await client.get(f"/tasks/{task['id']}/receipts", params={"limit": 100})).json()["items"]


# --- who is let in ------------------------------------------------------------------------------------


@pytest.mark.parametrize("verifier", SIGN)
async def test_a_call_its_sender_made_starts_a_run_and_its_repeat_finds_it(
    live: httpx.AsyncClient, verifier: str
) -> None:
    task = await create(live, config_of(verifier))
    assert SECRETS[verifier] not in (await live.get(f"/tasks/{task['id']}")).text
    first = await call(live, task, signed(verifier))
    assert first.status_code == 202, first.text
    again = await call(live, task, signed(verifier))
    assert (again.status_code, again.json()["outcome"]) == (200, "duplicate")
    assert again.json()["run_id"] == first.json()["run_id"]
    assert [each["outcome"] for each in await receipts(live, task)] == ["duplicate", "run"]


async def test_a_secret_made_here_is_shown_once(live: httpx.AsyncClient) -> None:
    task = await create(live, {"verifier": "standard"})
    secret = task["trigger_config"]["secret"]
    assert secret.startswith("whsec_")
    shown = (await live.get(f"/tasks/{task['id']}")).json()
    assert shown["trigger_config"]["secret"] == f"****{secret[-4:]}"
    assert (await call(live, task, signed("standard", secret=secret))).status_code == 202


@pytest.mark.parametrize("chosen", [None, "whsec_dGhlIG5ldyBzZWNyZXQgb2YgdGhlIHNlbmRlcg=="])
async def test_a_rotation_with_an_overlap_lets_both_in(live: httpx.AsyncClient, chosen: str | None) -> None:
    task = await create(live, config_of("standard"))
    body = {"overlap_seconds": 60} | ({"secret": chosen} if chosen else {})
    rotated = (await live.post(f"/tasks/{task['id']}/webhook/rotate", json=body)).json()
    assert chosen in (None, rotated["secret"])
    for number, secret in enumerate((SECRETS["standard"], rotated["secret"])):
        assert (await call(live, task, signed("standard", secret=secret, id=f"msg_{number}"))).status_code == 202
    await live.post(f"/tasks/{task['id']}/webhook/rotate", json={"overlap_seconds": 0})
    for secret in (SECRETS["standard"], rotated["secret"]):
        assert (await call(live, task, signed("standard", secret=secret, id="msg_9"))).status_code == 401


async def test_a_rotation_to_what_its_verifier_can_not_use_is_refused(live: httpx.AsyncClient) -> None:
    task = await create(live, config_of("standard"))
    for secret, code in (
        ("not-base64!", "invalid_request"),
        ("abc", "invalid_request"),
        ("****LaSw", "invalid_request"),
    ):
        refused = await live.post(f"/tasks/{task['id']}/webhook/rotate", json={"secret": secret})
        assert (refused.status_code, refused.json()["field"], refused.json()["code"]) == (422, "secret", code)
    assert (await call(live, task, signed("standard"))).status_code == 202


async def test_slack_reads_its_challenge_again(live: httpx.AsyncClient) -> None:
    task = await create(live, config_of("slack"))
    body = json.dumps({"type": "url_verification", "token": "old", "challenge": "3eZbrw1aB10FEMAGAZd4F"}).encode()
    refused = await call(live, task, signed("slack", body, secret="another secret"), body)
    assert refused.status_code == 401
    assert "3eZ" not in refused.text
    answer = await call(live, task, signed("slack", body), body)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB10FEMAGAZd4F"})
    assert [(each["outcome"], each["run_id"]) for each in await receipts(live, task)] == [
        ("filtered", None),
        ("refused", None),
    ]


async def test_fifty_copies_at_once_make_one_run(live: httpx.AsyncClient, database: Database) -> None:
    task = await create(live, config_of("github") | {"correlation": "$.n"})
    headers = signed("github")
    answers = await asyncio.gather(*(call(live, task, headers) for _ in range(50)))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    assert len({answer.json()["receipt_id"] for answer in answers}) == 50
    for table in ("runs", "conversations", "inputs"):
        assert await database.fetchval(f"select count(*) from {table}") == 1, table
    outcomes = await database.fetch("select outcome, count(*) as n from receipts group by 1 order by 1")
    assert [(row["outcome"], row["n"]) for row in outcomes] == [("duplicate", 49), ("run", 1)]


async def test_fifty_copies_under_two_names_of_headers_make_one_run(
    live: httpx.AsyncClient, database: Database
) -> None:
    task = await create(live, config_of("standard"))
    headers = signed("standard")
    renamed = {name.replace("webhook-", "svix-"): value for name, value in headers.items()}
    answers = await asyncio.gather(*(call(live, task, each) for each in (headers, renamed) * 25))
    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [202]
    assert await database.fetchval("select count(*) from runs") == 1


# --- who is not ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A call as it goes over the wire."""

    headers: list[tuple[str, str | bytes]]
    body: bytes = BODY
    query: dict[str, Any] = field(default_factory=dict[str, Any])

    def having(self, name: str, value: str | bytes) -> "Sent":
        """With a header set anew."""
        return replace(self, headers=[*((each, said) for each, said in self.headers if each != name), (name, value)])

    def without(self, name: str) -> "Sent":
        return replace(self, headers=[(each, said) for each, said in self.headers if each != name])

    def doubled(self, name: str) -> "Sent":
        return replace(self, headers=[*self.headers, *((each, said) for each, said in self.headers if each == name)])


def sent(verifier: str, body: bytes = BODY, **more: Any) -> Sent:
    return Sent(list(signed(verifier, body, **more).items()), body)


# The header that proves a sender.
PROOF = {
    "standard": "webhook-signature",
    "github": "X-Hub-Signature-256",
    "stripe": "Stripe-Signature",
    "slack": "X-Slack-Signature",
    "hmac": "X-Signature",
    "bearer": "Authorization",
    "token": "X-Parley-Token",
}
Variant = tuple[str, str, Callable[[], Sent]]


def proof(verifier: str) -> str:
    return signed(verifier)[PROOF[verifier]]


def forged() -> Iterator[Variant]:
    """What every verifier refuses."""
    for verifier, name in PROOF.items():
        good = sent(verifier)
        yield verifier, "nothing that proves it", lambda good=good, name=name: good.without(name)
        yield verifier, "an empty proof", lambda good=good, name=name: good.having(name, "")
        yield verifier, "a truncated proof", lambda v=verifier, good=good, name=name: good.having(name, proof(v)[:-2])
        yield verifier, "a proof twice", lambda good=good, name=name: good.doubled(name)
        yield (
            verifier,
            "two proofs in one",
            lambda v=verifier, good=good, name=name: good.having(name, f"{proof(v)}, {proof(v)}"),
        )
        yield verifier, "bytes that are no text", lambda good=good, name=name: good.having(name, b"\xff\xfe\x80")
        yield verifier, "a very long proof", lambda good=good, name=name: good.having(name, "v1,x" * 1500)
        wrong = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" if verifier == "standard" else "another secret"
        yield verifier, "another secret", lambda v=verifier, wrong=wrong: sent(v, secret=wrong)


def tampered() -> Iterator[Variant]:
    """What no verifier of signatures lets in."""
    for verifier in SIGNERS:
        good = sent(verifier)
        yield verifier, "a truncated body", lambda good=good: replace(good, body=BODY[:-9])
        yield verifier, "a changed body", lambda good=good: replace(good, body=BODY.replace(b"7", b"8"))
        yield verifier, "another spelling of the same JSON", lambda good=good: replace(good, body=BODY + b"\n")
        yield verifier, "no body at all", lambda good=good: replace(good, body=b"")
        yield verifier, "no UTF-8", lambda good=good: replace(good, body=b'{"a": "\xff"}')
        yield (
            verifier,
            "the proof of another call",
            lambda v=verifier, good=good: good.having(PROOF[v], signed(v, b"{}")[PROOF[v]]),
        )
    for verifier in ("standard", "stripe", "slack"):
        yield verifier, "late", lambda v=verifier: sent(v, late=302)
        yield verifier, "from the future", lambda v=verifier: sent(v, late=-310)


def of_one_kind() -> Iterator[Variant]:
    """What looks right to the one or the other."""
    yield "standard", "a replay under another id", lambda: sent("standard").having("webhook-id", "msg_2")
    yield (
        "standard",
        "a replay at another time",
        lambda: sent("standard", late=400).having("webhook-timestamp", signed("standard")["webhook-timestamp"]),
    )
    yield "standard", "no id", lambda: sent("standard").without("webhook-id")
    yield "standard", "no time", lambda: sent("standard").without("webhook-timestamp")
    yield "standard", "two ids", lambda: sent("standard").doubled("webhook-id")
    yield "standard", "two times", lambda: sent("standard").doubled("webhook-timestamp")
    yield (
        "standard",
        "a wrong version",
        lambda: sent("standard").having("webhook-signature", proof("standard").replace("v1,", "v1a,")),
    )
    yield "standard", "no version", lambda: sent("standard").having("webhook-signature", proof("standard")[3:])
    yield "standard", "hex", lambda: sent("standard").having("webhook-signature", "v1," + "0" * 64)
    yield "standard", "bad base64", lambda: sent("standard").having("webhook-signature", "v1,a=b=c,,v1")
    yield (
        "github",
        "the older SHA-1",
        lambda: sent("github").without("X-Hub-Signature-256").having("X-Hub-Signature", "sha1=" + "0" * 40),
    )
    yield "github", "no prefix", lambda: sent("github").having("X-Hub-Signature-256", proof("github")[7:])
    yield (
        "github",
        "a wrong prefix",
        lambda: sent("github").having("X-Hub-Signature-256", "sha1=" + proof("github")[7:]),
    )
    yield "github", "large letters", lambda: sent("github").having("X-Hub-Signature-256", proof("github").upper())
    yield (
        "stripe",
        "a wrong version",
        lambda: sent("stripe").having("Stripe-Signature", proof("stripe").replace("v1", "v0")),
    )
    yield "stripe", "no time", lambda: sent("stripe").having("Stripe-Signature", proof("stripe").partition(",")[2])
    yield "stripe", "two times", lambda: sent("stripe").having("Stripe-Signature", f"t=1,{proof('stripe')}")
    yield "stripe", "a time in words", lambda: sent("stripe").having("Stripe-Signature", "t=now,v1=00")
    yield "slack", "no time", lambda: sent("slack").without("X-Slack-Request-Timestamp")
    yield "slack", "a time in words", lambda: sent("slack").having("X-Slack-Request-Timestamp", "now")
    yield "slack", "two times", lambda: sent("slack").doubled("X-Slack-Request-Timestamp")
    yield "slack", "a wrong version", lambda: sent("slack").having("X-Slack-Signature", "v1=" + proof("slack")[3:])
    yield "hmac", "no prefix", lambda: sent("hmac").having("X-Signature", proof("hmac")[3:])
    yield "hmac", "a wrong encoding", lambda: sent("hmac").having("X-Signature", "v1=" + "0" * 128)
    yield "bearer", "another scheme", lambda: sent("bearer").having("Authorization", f"Basic {SECRETS['bearer']}")
    yield (
        "bearer",
        "in the URL",
        lambda: replace(sent("bearer").without("Authorization"), query={"token": SECRETS["bearer"]}),
    )
    yield (
        "token",
        "twice in the URL",
        lambda: replace(sent("token").without("X-Parley-Token"), query={"token": [SECRETS["token"]] * 2}),
    )
    yield "token", "its mask", lambda: sent("token").having("X-Parley-Token", f"****{SECRETS['token'][-4:]}")


VARIANTS = [*forged(), *tampered(), *of_one_kind()]
# What nobody's signature helps: told from the call alone, before its sender.
SHAPES: list[tuple[str, int, Callable[[str], Sent]]] = [
    ("too large", 413, lambda v: sent(v, b'{"a": "' + b"x" * 1_000_000 + b'"}')),
    ("much too large", 413, lambda v: sent(v, b'{"a": "' + b"x" * 3_000_000 + b'"}')),
    ("a form", 415, lambda v: sent(v, b"payload=%7B%7D").having("Content-Type", "application/x-www-form-urlencoded")),
    ("no content type", 415, lambda v: sent(v).without("Content-Type")),
    ("a text", 415, lambda v: sent(v).having("Content-Type", "text/plain")),
    ("gzip", 415, lambda v: sent(v, gzip.compress(BODY)).having("Content-Encoding", "gzip")),
    ("deflate", 415, lambda v: sent(v).having("Content-Encoding", "deflate")),
]
# What a sender signed that is no JSON.
BODIES: list[tuple[str, int, bytes]] = [
    ("empty", 400, b""),
    ("no JSON", 400, b"{"),
    ("half a JSON", 400, BODY[:20]),
    ("a form under a wrong type", 400, b"payload=%7B%7D"),
    ("gzip without saying so", 400, gzip.compress(BODY)),
    ("no UTF-8", 400, b'{"a": "\xff"}'),
    ("UTF-16", 400, BODY.decode().encode("utf-16")),
    ("a byte order mark", 400, b"\xef\xbb\xbf" + BODY),
    ("NaN", 400, b'{"a": NaN}'),
    ("a number too large", 400, b'{"a": 1e999}'),
    ("nested too deeply", 400, b"[" * 100_000),
    ("NUL", 422, b'{"a": "\\u0000"}'),
    ("half a surrogate pair", 422, b'{"a": "\\ud800"}'),
]


async def push(client: httpx.AsyncClient, task_id: str, made: Sent) -> tuple[int, dict[str, Any]]:
    """The status and body of an answer, but for what names the call."""
    answer = await client.post(f"/tasks/webhooks/{task_id}", content=made.body, headers=made.headers, params=made.query)
    said = {name: value for name, value in answer.json().items() if name not in ("instance", "request_id")}
    return answer.status_code, said


def test_there_are_enough_of_them() -> None:
    assert len(VARIANTS) + len(SHAPES) + len(BODIES) >= 120
    assert len({(verifier, says) for verifier, says, _ in VARIANTS}) == len(VARIANTS)


@pytest.mark.parametrize("verifier", PROOF)
async def test_what_is_not_proven_is_refused_as_if_there_were_no_webhook(
    live: httpx.AsyncClient, database: Database, verifier: str
) -> None:
    task = await create(live, config_of(verifier))
    variants = [(says, make) for each, says, make in VARIANTS if each == verifier]
    for says, make in variants:
        answer = await push(live, task["id"], make())
        assert answer == await push(live, NOBODY, make()), says
        assert (answer[0], answer[1]["code"]) == (401, "webhook_refused"), says
    assert await database.fetchval("select count(*) from runs") == 0
    refused = await receipts(live, task)
    assert [each["outcome"] for each in refused] == ["refused"] * len(variants)
    assert (await live.get(f"/tasks/{task['id']}")).json()["refused_calls"] == len(variants)
    assert (
        await database.fetchval("select count(*) from receipts where body is not null or receipt_key is not null") == 0
    )
    assert (await call(live, task, signed(verifier))).status_code == 202, "none of them took the delivery's id"


@pytest.mark.parametrize("verifier", ["standard", "github", "none"])
async def test_what_no_webhook_takes_is_refused_before_its_sender_is_looked_at(
    live: httpx.AsyncClient, verifier: str
) -> None:
    task = await create(live, {"verifier": "none"} if verifier == "none" else config_of(verifier))
    signer = "github" if verifier == "none" else verifier
    for says, status, make in SHAPES:
        answer = await push(live, task["id"], make(signer))
        assert answer == await push(live, NOBODY, make(signer)), says
        assert answer[0] == status, says
    told = [(each["outcome"], each["reason"]) for each in await receipts(live, task)]
    assert len(told) == len(SHAPES)
    assert {outcome for outcome, _ in told} == {"refused"}
    assert "1000000 bytes" in told[-1][1]


@pytest.mark.parametrize("verifier", SIGNERS)
async def test_what_is_signed_and_no_json_is_refused_with_the_reason(live: httpx.AsyncClient, verifier: str) -> None:
    task = await create(live, config_of(verifier))
    for says, status, body in BODIES:
        made = sent(verifier, body)
        answer = await push(live, task["id"], made)
        assert answer[0] == status, (says, answer)
        assert (await receipts(live, task))[0]["reason"] == answer[1]["detail"], says
        assert (await push(live, NOBODY, made))[0] == 401, says


@pytest.mark.parametrize("verifier", ["stripe", "slack"])
@pytest.mark.parametrize(
    "body", [b"[]", b"null", b"7", b'"text"', b'{"id": 7, "event_id": {}}', b'{"id": "", "event_id": ""}']
)
async def test_what_is_signed_and_of_another_shape_is_taken_without_an_id(
    live: httpx.AsyncClient, verifier: str, body: bytes
) -> None:
    task = await create(live, config_of(verifier))
    assert [(await call(live, task, signed(verifier, body), body)).status_code for _ in range(2)] == [202, 202]
