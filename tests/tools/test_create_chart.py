"""create_chart: the pictures are real, the same each time, hold no script; nonsense is refused by name."""

import asyncio
import calendar
import hashlib
import io
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from app import charts
from app.charts import artist
from app.errors import InvalidArguments, ToolError
from app.settings import Settings
from app.tools import BUILT_IN
from app.tools.create_chart import read_chart
from tests.tools.context import Context

CALL = BUILT_IN["create_chart"].call
SVG = "{http://www.w3.org/2000/svg}"


@dataclass
class Gallery(Context):
    """A context that keeps what it is given."""

    pictures: dict[str, bytes] = field(default_factory=dict)

    async def keep(self, name: str, media_type: str, content: bytes) -> dict[str, Any]:
        self.pictures[media_type] = content
        return await super().keep(name, media_type, content)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
async def gallery(home: Path) -> AsyncIterator[Gallery]:
    settings = Settings.of(parley_home=home)
    yield Gallery(settings, egress=None)  # type: ignore[arg-type]
    await charts.aclose()


async def drawn(
    gallery: Gallery, kind: str, data: Any, title: str = "A title"
) -> tuple[ElementTree.Element, Image.Image]:
    made = await CALL(gallery, {"chart_type": kind, "data": data, "title": title})
    assert [each["media_type"] for each in made["files"]] == ["image/svg+xml", "image/png"]
    picture = Image.open(io.BytesIO(gallery.pictures["image/png"]))
    picture.load()
    return ElementTree.fromstring(gallery.pictures["image/svg+xml"]), picture


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(each.itertext()).strip() for each in svg.iter(f"{SVG}text")]


GOOD = {
    "line": {
        "x": ["2026-01-01", "2026-02-01"],
        "series": [{"name": "a", "values": [1, None]}, {"values": ["2.50", 3]}],
    },
    "bar": {"Mon": 3, "Tue": -5.5},
    "scatter": {"series": [{"name": "a", "x": [1, 2], "values": [3, 4]}, {"name": "b", "x": [1.5], "values": [0]}]},
    "pie": {"x": ["Tea", "Coffee"], "values": [3, 5]},
    "heatmap": {"x": ["Mon", "Tue"], "y": ["am", "pm"], "values": [[1, 2], [3, None]]},
}


@pytest.mark.parametrize("kind", GOOD)
async def test_every_kind_is_drawn_in_both_formats(gallery: Gallery, kind: str) -> None:
    svg, picture = await drawn(gallery, kind, GOOD[kind])
    assert picture.size == (1280, 720)
    assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10
    assert "A title" in texts(svg)


async def test_what_is_in_the_data_is_in_the_picture(gallery: Gallery) -> None:
    svg, _ = await drawn(
        gallery, "bar", {"labels": ["Tea", "Mate"], "datasets": [{"label": "Cups", "data": [3, 1250]}]}
    )
    assert {"Tea", "Mate", "3", "1,250"} <= set(texts(svg))
    svg, _ = await drawn(gallery, "pie", {"Tea": 3, "Mate": 1})
    assert {"Tea: 3 (75.0%)", "Mate: 1 (25.0%)"} <= set(texts(svg))
    svg, _ = await drawn(gallery, "line", {"values": [1, 2], "x_label": "day", "y_label": "cups"})
    assert {"day", "cups"} <= set(texts(svg))


async def test_names_lean_where_they_would_run_into_one_another(gallery: Gallery) -> None:
    for months, leans in ((["January", "May"], False), ([*calendar.month_name[1:]], True)):
        svg, _ = await drawn(gallery, "line", dict.fromkeys(months, 1))
        named = [each for each in svg.iter(f"{SVG}text") if "".join(each.itertext()).strip() in months]
        assert len(named) == len(months)
        assert all(("rotate(-35 " in each.attrib["transform"]) is leans for each in named)


async def test_the_same_chart_is_the_same_bytes(gallery: Gallery) -> None:
    seen = set()
    for _ in range(2):
        await drawn(gallery, "line", GOOD["line"])
        seen.add(tuple(hashlib.sha256(content).hexdigest() for content in gallery.pictures.values()))
        await charts.aclose()  # Another process draws the next one.
    assert len(seen) == 1


@pytest.mark.parametrize(
    "text", ["$5_{x}$ and $6", "<script>alert(1)</script>", "a & b ]]>", "x\x00\x07y", "\ud800", "日本 🎉 שלום"]
)
async def test_texts_stay_texts(gallery: Gallery, text: str) -> None:
    data = {"x": [text, "b"], "series": [{"name": text, "values": [1, 2]}, {"values": [2, 3]}], "y_label": text}
    svg, _ = await drawn(gallery, "bar", data, text if text.isprintable() else "A title")
    assert not [each for each in svg.iter() if each.tag.rpartition("}")[2] in ("script", "foreignObject", "a")]
    assert not [name for each in svg.iter() for name in each.attrib if name.lower().startswith("on")]
    if text.isprintable() and text.isascii():
        assert texts(svg).count(text) >= 2


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("line", {}, r"data.series\[0\].values: must be a list"),
        ("line", [], "data: must be an object"),
        ("line", "1, 2, 3", "data: must be an object"),
        ("line", {"series": []}, "data.series: must be a list with something in it"),
        ("line", {"series": [{"values": []}]}, r"data.series\[0\].values: must be a list with something in it"),
        ("line", {"series": [3]}, r"data.series\[0\]: must be an object"),
        ("line", {"series": [{"values": [1], "colour": "red"}]}, r"data.series\[0\]: 'colour' means nothing here"),
        ("line", {"x": [1, 2, 3], "series": [{"values": [1, 2]}]}, "there are 2 values for 3 x"),
        ("line", {"x": [1], "values": [1], "legend": True}, "data: 'legend' means nothing here"),
        ("line", {"values": [1, float("nan")]}, r"data.series\[0\].values\[1\]: must be a finite number"),
        ("line", {"values": [1, float("inf")]}, "must be a finite number"),
        ("line", {"values": [1, 1e101]}, r"at most 1e\+100"),
        ("line", {"values": [10**400]}, r"at most 1e\+100"),
        ("line", {"values": [1, "many"]}, "must be a number or null, not 'many'"),
        ("line", {"values": [True]}, "must be a number"),
        ("line", {"values": [None, None]}, "holds no number"),
        ("line", {"values": [0] * 10_001}, "10001 points are more than the 10000"),
        ("line", {"values": [0] * 1_000_000}, "1000000 points are more than the 10000"),
        ("line", {"series": [{"values": [0] * 6000}] * 2}, "12000 points are more than the 10000"),
        ("line", {"series": [{"values": [0]}] * 21}, "21 series are more than the 20"),
        ("line", {"x": [[1]], "values": [1]}, r"data.x\[0\]: must be a text or a number"),
        ("line", {"values": [1], "x_label": "x" * 101}, "data.x_label: must be a text of at most 100"),
        ("bar", {f"label {n}": n for n in range(10_000)}, "more than"),
        ("bar", {f"label {n}": n for n in range(201)}, "201 labels are more than the 200"),
        ("bar", {"x": ["a"], "series": [{"values": [1]}, {"x": ["b"], "values": [1]}]}, "share one data.x"),
        ("scatter", {"x": ["a", "b"], "values": [1, 2]}, "a scatter chart needs numbers or ISO dates as x"),
        ("scatter", {"x": [1, 2], "values": [1, None]}, "must be a number, not 'None'"),
        ("scatter", {"x": [1, float("nan")], "values": [1, 2]}, r"data.x\[1\]: must be a finite number"),
        ("pie", {"a": 1, "b": -1}, "no value below 0"),
        ("pie", {"a": 0}, "not all 0"),
        ("pie", {f"slice {n}": 1 for n in range(25)}, "25 slices are more than the 24"),
        ("pie", {"x": ["a"], "values": [1, 2]}, "there are 2 values for 1 labels"),
        ("pie", {"x": ["a"], "series": [{"values": [1]}, {"values": [1]}]}, "a pie shows one series"),
        ("heatmap", {"values": [1, 2]}, r"data.values\[0\]: must be a list"),
        ("heatmap", {"values": [[1, 2], [3]]}, r"data.values\[1\]: has 1 numbers, the first row 2"),
        ("heatmap", {"values": [[1] * 201]}, "1 x 201 cells are too many"),
        ("heatmap", {"x": ["a"], "values": [[1, 2]]}, "data.x: has 1 labels for 2"),
        ("heatmap", {"values": [["x"]]}, r"data.values\[0\]\[0\]: must be a number"),
        ("heatmap", {"series": [{"values": [1]}]}, "data.values: must be a list"),
    ],
)  # fmt: skip
def test_nonsense_is_refused_by_name(kind: str, data: Any, said: str) -> None:
    with pytest.raises(InvalidArguments, match=said) as caught:
        read_chart(kind, data)
    assert len(caught.value.detail) < 400


async def test_wrong_kinds_and_long_titles_are_refused(gallery: Gallery) -> None:
    with pytest.raises(InvalidArguments, match="chart_type"):
        await CALL(gallery, {"chart_type": "radar", "data": {"a": 1}, "title": "x"})
    with pytest.raises(InvalidArguments, match="title"):
        await CALL(gallery, {"chart_type": "bar", "data": {"a": 1}, "title": "x" * 201})


@pytest.mark.parametrize(
    "data",
    [
        {"values": [1e100, -1e100]},
        {"values": [1e-300, 2e-300]},
        {"values": [0]},
        {"x": [1e100, -1e100], "values": [5, 5]},
        {"x": ["0001-01-01", "9999-12-31"], "values": [1, 2]},
        {"x": ["2026-01-01T00:00:00Z", "2026-01-01T00:00:01+02:00"], "values": [1, 2]},
    ],
)
async def test_odd_numbers_are_drawn(gallery: Gallery, data: Any) -> None:
    await drawn(gallery, "line", data)


async def test_a_chart_that_fails_does_not_hurt_the_next(gallery: Gallery) -> None:
    with pytest.raises(ToolError, match="can't be drawn: KeyError"):
        await charts.draw(gallery.settings, {"kind": "radar", "title": ""})
    await drawn(gallery, "line", {"values": [1, 2]})


async def test_charts_at_once_do_not_mix(gallery: Gallery) -> None:
    others = [Gallery(gallery.settings, gallery.egress) for _ in range(4)]
    made = await asyncio.gather(*(drawn(each, "bar", {f"only {n}": n + 1}) for n, each in enumerate(others)))
    for number, (svg, _) in enumerate(made):
        assert [text for text in texts(svg) if text.startswith("only")] == [f"only {number}"]


async def test_a_process_that_dies_or_hangs_is_replaced(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    await drawn(gallery, "bar", {"a": 1})
    process = artist._ARTIST._process
    assert process
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await drawn(gallery, "bar", {"a": 1})
    await drawn(gallery, "bar", {"a": 1})
    second = artist._ARTIST._process
    assert second
    assert second.pid != process.pid
    second.kill()
    await second.wait()
    await drawn(gallery, "bar", {"a": 1})


async def test_the_process_knows_nothing_of_ours(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    await drawn(gallery, "bar", {"a": 1})
    process = artist._ARTIST._process
    assert process
    environment = await asyncio.to_thread(Path(f"/proc/{process.pid}/environ").read_bytes)
    assert b"sk-secret" not in environment
