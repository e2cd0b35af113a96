"""A text is cut into chunks that can be cited."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.knowledge.chunking import MOST, OVERLAP, chunks_of
from app.knowledge.reading import MARKDOWN, PDF, PLAIN, Reading

WORDS = st.text(alphabet="ab \n.#=-`", max_size=6_000)


@given(WORDS, st.sampled_from([PLAIN, MARKDOWN]))
def test_every_word_is_in_a_chunk_of_bounded_length(text: str, kind: str) -> None:
    covered = [False] * len(text)
    last = -1
    for chunk in chunks_of(Reading(text, kind)):
        assert 0 < chunk.ends_at - chunk.begins_at <= MOST + OVERLAP
        assert chunk.begins_at > last
        last = chunk.begins_at
        covered[chunk.begins_at : chunk.ends_at] = [True] * (chunk.ends_at - chunk.begins_at)
    assert not [index for index, there in enumerate(covered) if not there and not text[index].isspace()]


def test_chunks_begin_at_headings_and_name_those_above() -> None:
    body = "Some words that fill the section. " * 10
    text = f"# Guide\n\n{body}\n\n## Setup ##\n\n{body}\n\n### Keys\n\n{body}\n\nUsage\n-----\n\n{body}\n"
    chunks = chunks_of(Reading(text, MARKDOWN))
    assert [chunk.heading for chunk in chunks] == [
        "Guide",
        "Guide > Setup",
        "Guide > Setup > Keys",
        "Guide > Usage",
    ]
    assert text[chunks[1].begins_at :].startswith("## Setup ##")


def test_a_heading_alone_is_read_with_what_follows() -> None:
    chunks = chunks_of(Reading("Guide\n=====\n\n## Setup\n\n" + "Words. " * 60, MARKDOWN))
    assert [(chunk.begins_at, chunk.heading) for chunk in chunks] == [(0, "Guide > Setup")]


def test_what_stands_in_a_fence_is_no_heading() -> None:
    body = "Words that fill. " * 20
    text = f"# Real\n\n{body}\n\n```sh\n# a comment\n{body}\n```\n\n{body}"
    assert {chunk.heading for chunk in chunks_of(Reading(text, MARKDOWN))} == {"Real"}


def test_front_matter_and_plain_text_have_no_headings() -> None:
    text = "---\ntitle: x\n---\n\n" + "Words. " * 60
    assert {chunk.heading for chunk in chunks_of(Reading(text, MARKDOWN))} == {""}
    assert {chunk.heading for chunk in chunks_of(Reading("# Not one\n\nWords.", PLAIN))} == {""}


def test_long_text_is_cut_behind_sentences_and_overlaps() -> None:
    text = " ".join(f"Sentence number {number} says what it says." for number in range(200))
    chunks = chunks_of(Reading(text, PLAIN))
    assert all(text[chunk.ends_at - 1] == "." for chunk in chunks)
    for before, after in pairwise(chunks):
        assert 0 < before.ends_at - after.begins_at <= OVERLAP


def test_a_chunk_knows_its_page() -> None:
    pages = ["Word. " * 300, "Other. " * 300]
    reading = Reading("\n\n".join(pages), PDF, pages=(0, len(pages[0]) + 2))
    assert [chunk.page for chunk in chunks_of(reading)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "text", ["# " + " " * 3_000_000 + "x", "#" * 3_000_000, "a" * 3_000_000, "`" * 3_000_000, "\n" * 3_000_000 + "x"]
)
def test_no_text_takes_long(text: str) -> None:
    """Seconds, where a pattern that goes back and forth would take days."""
    began = time.monotonic()
    chunks_of(Reading(text, MARKDOWN))
    assert time.monotonic() - began < 30
