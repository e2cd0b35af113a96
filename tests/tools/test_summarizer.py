"""summarizer: by the model in bounded requests, or of the text's own sentences; never longer than asked."""

import json

import pytest

from app.errors import InvalidArguments
from app.tools import BUILT_IN
from app.tools.summarizer import MAX_TEXT, PART_CHARACTERS, extracted, in_parts, shortened
from tests.tools.context import Context

CALL = BUILT_IN["summarizer"].call
TEXT = (
    "The harbour of Kiel was closed on Monday after a storm damaged two cranes. Nobody was hurt. "
    "The weather office had warned of the storm on Sunday evening. Ferries to Oslo and Gothenburg were sent to Lübeck. "
    "The harbour office expects the cranes to be repaired within ten days. It was cold. "
    "Repairing the two cranes will cost 1.4 million euros, said the harbour office. Somebody sold coffee at the gate."
)


def prompts(context: Context) -> list[str]:
    return [asked[1] for asked in context.asked if asked[0] == "complete"]


async def test_the_model_writes_it() -> None:
    context = Context.of()
    context.answer = " A storm closed the harbour. "
    assert await CALL(context, {"text": TEXT, "max_length": 100}) == {
        "summary": "A storm closed the harbour.",
        "method": "model",
        "characters": 27,
        "of_characters": len(TEXT),
    }
    [prompt] = prompts(context)
    assert "at most 100 characters" in prompt
    assert json.dumps(TEXT, ensure_ascii=False) in prompt


async def test_a_short_text_asks_nobody() -> None:
    context = Context.of()
    assert (await CALL(context, {"text": "Short.", "max_length": 100}))["method"] == "unchanged"
    assert prompts(context) == []


@pytest.mark.parametrize(("model", "method"), [("demo", "auto"), ("test", "extractive")])
async def test_without_a_model_it_is_made_of_the_texts_own_sentences(model: str, method: str) -> None:
    context = Context.of()
    context.model_name = model
    found = await CALL(context, {"text": TEXT, "max_length": 160, "method": method})
    assert found["method"] == "extractive"
    assert prompts(context) == []
    assert 60 < len(found["summary"]) <= 160
    assert all(f"{part}." in TEXT for part in found["summary"].rstrip(".").split(". ") if part)
    assert "harbour" in found["summary"]
    assert "coffee" not in found["summary"]


async def test_a_model_that_says_too_much_or_nothing() -> None:
    context = Context.of()
    context.answer = "One sentence is here. " * 30
    found = await CALL(context, {"text": TEXT, "max_length": 100})
    assert found["summary"] == "One sentence is here. One sentence is here. One sentence is here. One sentence is here."
    context.answer = "  "
    assert (await CALL(context, {"text": TEXT, "max_length": 100}))["method"] == "extractive"


async def test_a_long_text_is_read_in_a_bounded_number_of_requests() -> None:
    context = Context.of()
    context.answer = "Part."
    long = " ".join(f"Sentence number {number} says something." for number in range(6000))[:MAX_TEXT]
    found = await CALL(context, {"text": long, "max_length": 200})
    asked = prompts(context)
    assert len(asked) == MAX_TEXT // PART_CHARACTERS + 1
    assert max(map(len, asked)) < PART_CHARACTERS * 1.1 + 1000
    assert (found["summary"], found["method"]) == ("Part.", "model")
    assert ("progress", "Summarising", "10", "10") in context.asked


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "word " * 20_000, "Sentence. " * 9000 + "End of it here.", "日本語" * 9000]
)
def test_parts_hold_everything_and_fit(text: str) -> None:
    parts = in_parts(text)
    assert all(0 < len(part) <= PART_CHARACTERS * 1.1 for part in parts)
    assert set("".join(parts)) == set(text)
    assert len(parts) <= -(-len(text) // PART_CHARACTERS)


@pytest.mark.parametrize("limit", [20, 21, 50, 99, 160, 300])
@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "Der Hafen wurde gesperrt. Ein Sturm hat zwei Kräne beschädigt! Fähren fahren nach Lübeck. " * 5,
        "港は月曜日に閉鎖された。嵐がクレーンを壊した。フェリーは別の港へ向かった。修理には十日かかる。" * 4,
        "Порт закрыт. Шторм повредил два крана. Ремонт займёт десять дней. Паромы идут в Любек. " * 4,
        "no end of a sentence anywhere " * 40,
        "x" * 500,
        "... !!! ??? " * 100,
        "# Title\n\n- first entry of the list\n- second entry of the list\n\nA paragraph that ends. Another one.\n" * 5,
    ],
)
def test_the_length_is_kept_in_any_language(text: str, limit: int) -> None:
    for made in (extracted(text, limit), shortened(text, limit)):
        assert 0 < len(made) <= limit
    assert extracted(text, limit) == extracted(text, limit)


def test_sentences_stand_in_their_order() -> None:
    made = extracted(TEXT, 250)
    places = [TEXT.index(part) for part in made.rstrip(".").split(". ")]
    assert places == sorted(places)


def test_a_text_of_the_greatest_length_ends() -> None:
    text = " ".join(f"Sentence {n} of {n % 977} and {n % 31} things." for n in range(9000))[:MAX_TEXT]
    assert 19_000 < len(extracted(text, 20_000)) <= 20_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * (MAX_TEXT + 1)}, "text"),
        ({"text": TEXT, "max_length": 0}, "max_length"),
        ({"text": TEXT, "max_length": 10**9}, "max_length"),
        ({"text": TEXT, "method": "magic"}, "method"),
        ({"text": TEXT, "length": 3}, "length: there is no such argument"),
    ],
)
async def test_bad_arguments_are_named(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidArguments, match=said):
        await CALL(Context.of(), arguments)
