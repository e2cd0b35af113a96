"""What is taken out of texts: the secrets of a call, and those that the process knows."""

import base64
import html
import json
import logging
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus
from uuid import uuid4

import pytest
import structlog

from app import redaction, telemetry
from app.redaction import MASK, redact, remember, without_known
from app.settings import Settings

SECRET = 's3cret "of" a+kind/ü'


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Both what is known and where logs go are the process's: what a test changes is taken back."""
    monkeypatch.setattr(redaction, "_known", type(redaction._known)())
    monkeypatch.setattr(redaction, "_sorted", {})
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    structlog.configure(**before)
    root.handlers, root.level = handlers, level


@pytest.mark.parametrize(
    "spelled",
    [
        SECRET,
        quote_plus(SECRET),
        json.dumps(SECRET),
        json.dumps(json.dumps({"key": SECRET})),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        quote(SECRET),
        re.sub("%..", lambda found: found[0].lower(), quote_plus(SECRET)),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
        html.escape(SECRET),
        html.escape(SECRET, quote=False),
        html.escape(SECRET).replace("&quot;", "&#34;"),
        json.dumps(SECRET, ensure_ascii=False).replace("/", r"\/"),
    ],
)
def test_a_secret_goes_however_it_is_spelled(spelled: str) -> None:
    text = f"before {spelled} after"
    remember(SECRET)
    for found in (redact(text, [SECRET]), without_known(text)):
        assert found.replace('"', "").replace("\\", "").replace("{key: ", "").replace("}", "").rstrip("=") in (
            f"before {MASK} after",
            f"before {MASK}= after",
            f"before {MASK}== after",
        )


@pytest.mark.parametrize("user", ["", "a", "ab", "abc"])
def test_a_secret_goes_from_the_base64_of_more_than_itself(user: str) -> None:
    for after in ("", ":realm"):
        encoded = base64.b64encode(f"{user}:{SECRET}{after}".encode()).decode()
        left = redact(f"Basic {encoded}", [SECRET])
        around = left.removeprefix("Basic ").split(MASK)
        assert len(around) == 2, left
        # What stays are at most the characters that a neighbour has a part in.
        assert len(around[0]) <= len(user) * 2 + 3
        assert len(around[1].rstrip("=")) <= len(after) * 2 + 2


def test_the_content_of_a_file_is_cleaned() -> None:
    content = b"\x00\xff before " + SECRET.encode() + b" after"
    assert redact([content], [SECRET]) == [b"\x00\xff before **** after"]


def test_keys_and_members_are_cleaned_and_the_rest_stays() -> None:
    value = {SECRET: [1, None, {"a": f"x{SECRET}"}], "b": True}
    assert redact(value, [SECRET]) == {MASK: [1, None, {"a": f"x{MASK}"}], "b": True}
    assert redact("a pin: 123", ["123"]) == "a pin: 123"


def test_a_workspace_sees_what_others_hide() -> None:
    ours, theirs = uuid4(), uuid4()
    remember({"token": "token-of-ours"}, ours)
    remember(["token-of-theirs"], theirs)
    remember("key-of-the-operator")
    text = "token-of-ours token-of-theirs key-of-the-operator"
    assert without_known(text, ours) == f"{MASK} token-of-theirs key-of-the-operator"
    assert without_known(text) == f"{MASK} {MASK} {MASK}"


def test_as_many_are_known_as_can_be_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "MOST_KNOWN", 2)
    remember(["secret-one", "secret-two"])
    remember("secret-one")
    assert without_known("secret-one secret-two") == f"{MASK} {MASK}"
    remember("secret-three")
    assert without_known("secret-one secret-two secret-three") == f"{MASK} secret-two {MASK}"


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_of_the_log_shows_a_secret(capsys: pytest.CaptureFixture[str], form: str) -> None:
    settings = Settings.of(
        log_format=form,
        database_url="postgresql://parley:pass-of-db@db/parley",
        openai_api_key="sk-of-openai",
        parley_encryption_keys="k1:" + "A" * 43 + "=",
    )
    telemetry.configure(settings)
    remember({"token": 'opened "secret"'}, uuid4())
    log = structlog.stdlib.get_logger("app.x")
    try:
        raise ValueError('it said opened "secret" and sk-of-openai')
    except ValueError:
        log.exception("tool.broke", seen=["sk-of-openai", {"a": 'opened "secret"'}])
    log.warning("away", dsn="postgresql+asyncpg://parley:pass-of-db@db/parley", key="A" * 43 + "=")
    logging.getLogger("library").error("sent %s", {"authorization": "Bearer sk-of-openai"})
    said = capsys.readouterr().err
    for secret in ("opened", "sk-of-openai", "pass-of-db", "A" * 43):
        assert secret not in said
    assert "ValueError" in said
    assert "parley" in said
    if form == "json":
        assert [json.loads(line)["level"] for line in said.splitlines()] == ["error", "warning", "error"]
