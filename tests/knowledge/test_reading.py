"""Files become text with positions, and no file hangs or fells the process."""

import asyncio
import time

import pytest

from app.errors import UnreadableDocument
from app.knowledge import extract, reading
from app.knowledge.reading import HTML, MARKDOWN, PDF, PLAIN, media_type_of, read
from tests.knowledge.files import pdf


async def test_a_pdf_is_text_with_the_places_of_its_pages() -> None:
    found = await read(pdf("One whale.", "Two otters.", "Three bears.", title="Animals"), PDF, field="file")
    assert found.title == "Animals"
    assert [found.text[start:].split()[0] for start in found.pages] == ["One", "Two", "Three"]


async def test_a_pdf_without_a_user_password_is_read() -> None:
    assert "open to all" in (await read(pdf("open to all", password=""), PDF, field="file")).text


async def test_html_is_read_without_what_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    page = """<html><head><title>A page</title><style>p {}</style></head><body><h1>Top</h1>
        <script>document.write("evil")</script><p onclick="evil()">Words <b>in</b> it.</p></body></html>"""
    found = await read(page.encode(), HTML, field="file")
    assert (found.title, found.text) == ("A page", "# Top\n\nWords **in** it.")


async def test_html_is_decoded_as_it_says() -> None:
    page = '<meta charset="iso-8859-1"><p>Käse</p>'.encode("latin-1")
    assert (await read(page, HTML, field="file")).text == "Käse"


@pytest.mark.parametrize("content", ["Käse".encode(), "\ufeffKäse".encode(), "Käse".encode("utf-16")])
async def test_text_is_decoded(content: bytes) -> None:
    assert (await read(content, PLAIN, field="file")).text == "Käse"


@pytest.mark.parametrize(
    ("given", "name", "content", "expected"),
    [
        (None, "a.md", b"x", MARKDOWN),
        ("application/octet-stream", "a.HTML", b"x", HTML),
        ("application/octet-stream", "unnamed", b"%PDF-1.4", PDF),
        (None, "", b"x", PLAIN),
        ("text/csv; charset=utf-8", "a.csv", b"x", PLAIN),
        ("text/x-markdown", "a", b"x", MARKDOWN),
    ],
)
def test_the_type_is_what_was_said_else_what_the_name_says(
    given: str | None, name: str, content: bytes, expected: str
) -> None:
    assert media_type_of(given, name, content, field="file") == expected


async def test_a_reader_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child waits for the rest of its input for ever, as a parser in a loop would go on."""
    monkeypatch.setattr(reading, "WALL_SECONDS", 0.5)
    process: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def hanging(*program: str, **options: object) -> asyncio.subprocess.Process:
        made = await start(program[0], "-c", "import time; time.sleep(60)", **options)  # type: ignore[arg-type]
        process.append(made)
        return made

    monkeypatch.setattr(asyncio, "create_subprocess_exec", hanging)
    began = time.monotonic()
    with pytest.raises(UnreadableDocument, match="too long"):
        await read(b"%PDF-", PDF, field="file")
    assert time.monotonic() - began < 20
    assert process[0].returncode == -9


async def test_a_reader_that_dies_is_an_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    start = asyncio.create_subprocess_exec

    async def dying(*program: str, **options: object) -> asyncio.subprocess.Process:
        return await start(program[0], "-c", "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)", **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", dying)
    with pytest.raises(UnreadableDocument, match="too much time or memory"):
        await read(b"%PDF-", PDF, field="file")


async def test_a_reader_sees_nothing_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen: list[dict[str, str]] = []
    start = asyncio.create_subprocess_exec

    async def watched(*program: str, **options: object) -> asyncio.subprocess.Process:
        seen.append(options["env"])  # type: ignore[arg-type]
        return await start(*program, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    await read(b"<p>x</p>", HTML, field="file")
    assert [set(each) for each in seen] == [{"PYTHONPATH"}]


def test_too_many_pages_and_too_much_text_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract, "MAX_PAGES", 1)
    assert extract.extract("pdf", pdf("a", "b")) == {"error": "it has more than 1 pages"}
    monkeypatch.setattr(extract, "MAX_PAGES", 10)
    monkeypatch.setattr(extract, "MAX_CHARACTERS", 10)
    assert "characters" in extract.extract("pdf", pdf("a long line of text"))["error"]
    monkeypatch.setattr(extract, "MAX_MARKUP", 10)
    assert "markup" in extract.extract("html", b"<p>a long line of text</p>")["error"]


def test_deeply_nested_html_is_read() -> None:
    found = extract.extract("html", b"<div>" * 5_000 + b"deep" + b"</div>" * 5_000)
    assert "deep" in found.get("text", "") or "broken" in found["error"]
