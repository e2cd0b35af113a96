"""Draws charts, one a line: a JSON object comes in by standard input, both pictures go out by standard output.

Run as a script by `app.charts.artist`, apart from the rest: it imports nothing of Parley. A chart is

    {"kind": "line" | "bar" | "scatter", "title", "x_label", "y_label", "x_kind": "number" | "time" | "category",
     "series": [{"name", "x": [...], "values": [number or null]}]}
    {"kind": "pie", "title", "labels": [...], "values": [...]}
    {"kind": "heatmap", "title", "x_label", "y_label", "columns": [...], "rows": [...], "values": [[number or null]]}

The same chart gives the same bytes: no time, no random id.
"""

import io
import json
import sys
import textwrap
from datetime import datetime
from itertools import cycle
from typing import Any

import matplotlib as untyped_matplotlib
from matplotlib import dates, font_manager, ticker
from matplotlib.figure import Figure

matplotlib: Any = untyped_matplotlib

SIZE_INCHES = (8.0, 4.5)
DOTS_PER_INCH = 160
MAX_LABEL = 24
LINE_CHARACTERS = 104  # as many stand side by side under a chart
MAX_LINE = 55  # of the title
MAX_TICKS = 12
MAX_WRITTEN_CELLS = 150
MAX_WRITTEN_BARS = 16
# Apart from one another for people who see colours differently, dark enough on the white ground that each picture brings
# along, so that it reads the same on a light and on a dark page.
COLOURS = ("#1f5fbf", "#d9730d", "#1a8a5a", "#c4314b", "#7a4fbf", "#0e8a9e", "#8a6d1a", "#b0418e", "#5b6470", "#6a9a1f")
INK, FAINT, GROUND = "#1f2933", "#d5dae1", "#ffffff"
# Beside the library's own font, those for scripts it lacks, where the machine has them.
FONTS = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Sans Arabic", "Noto Sans")

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "parley",
    "text.parse_math": False,  # A dollar sign is a dollar sign.
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "grid.color": FAINT,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "legend.frameon": False,
}


def draw(chart: dict[str, Any]) -> tuple[bytes, bytes]:
    """The chart as SVG and as PNG."""
    figure: Any = Figure(figsize=SIZE_INCHES, layout="constrained")
    axes: Any = figure.subplots()
    DRAWERS[chart["kind"]](figure, axes, chart)
    if chart["title"]:
        lines = textwrap.wrap(chart["title"], MAX_LINE, max_lines=4)
        axes.set_title("\n".join(lines), fontsize=13, fontweight="bold", pad=12)
    return _saved(figure, "svg", {"Date": None, "Creator": None}), _saved(figure, "png", {"Software": None})


def _saved(figure: Any, kind: str, metadata: dict[str, Any]) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
    return picture.getvalue()


# --- kinds ----------------------------------------------------------------------------------------


def _line(figure: Any, axes: Any, chart: dict[str, Any]) -> None:
    styles = cycle(["-"] * len(COLOURS) + ["--"] * len(COLOURS))
    for series, colour in zip(chart["series"], cycle(COLOURS), strict=False):
        few = len(series["values"]) <= 40
        values = [float("nan") if value is None else value for value in series["values"]]
        axes.plot(_places(chart, series), values, linestyle=next(styles), color=colour, linewidth=2,
                  marker="o" if few else "", markersize=4, label=series["name"])  # fmt: skip
    _dress(figure, axes, chart)


def _scatter(figure: Any, axes: Any, chart: dict[str, Any]) -> None:
    size = 36 if max(len(series["values"]) for series in chart["series"]) <= 200 else 12
    for series, colour in zip(chart["series"], cycle(COLOURS), strict=False):
        axes.scatter(_places(chart, series), series["values"], s=size, color=colour, alpha=0.8, linewidths=0,
                     label=series["name"])  # fmt: skip
    _dress(figure, axes, chart)


def _bar(figure: Any, axes: Any, chart: dict[str, Any]) -> None:
    series = chart["series"]
    width = 0.8 / len(series)
    written = sum(len(each["values"]) for each in series) <= MAX_WRITTEN_BARS
    for number, (each, colour) in enumerate(zip(series, cycle(COLOURS), strict=False)):
        places = [place - 0.4 + width * (number + 0.5) for place in range(len(each["values"]))]
        heights = [0 if value is None else value for value in each["values"]]
        bars = axes.bar(places, heights, width=width * 0.95, color=colour, label=each["name"])
        if written:
            texts = ["" if value is None else _number(value) for value in each["values"]]
            axes.bar_label(bars, texts, padding=2, fontsize=8)
    axes.axhline(0, color=INK, linewidth=0.8)
    _dress(figure, axes, chart)


def _pie(figure: Any, axes: Any, chart: dict[str, Any]) -> None:
    total = sum(chart["values"])
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(chart["values"]))]
    wedges, _ = axes.pie(
        chart["values"], colors=colours, startangle=90, counterclock=False,
        wedgeprops={"linewidth": 1.5, "edgecolor": GROUND},
    )  # fmt: skip
    entries = [
        f"{_short(label)}: {_number(value)} ({value / total:.1%})"
        for label, value in zip(chart["labels"], chart["values"], strict=True)
    ]
    figure.legend(wedges, entries, loc="outside right center", fontsize=9)


def _heatmap(figure: Any, axes: Any, chart: dict[str, Any]) -> None:
    values = [[float("nan") if value is None else value for value in row] for row in chart["values"]]
    image = axes.imshow(values, cmap="viridis", aspect="auto")
    figure.colorbar(image, ax=axes, format=ticker.FuncFormatter(_tick)).outline.set_visible(False)
    _ticks(axes, "x", chart["columns"])
    _ticks(axes, "y", chart["rows"], most=24)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xlabel(chart["x_label"])
    axes.set_ylabel(chart["y_label"])
    if len(chart["rows"]) * len(chart["columns"]) <= MAX_WRITTEN_CELLS:
        _write_cells(axes, image, chart["values"])


def _write_cells(axes: Any, image: Any, values: list[list[float | None]]) -> None:
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            if value is not None:
                dark = image.norm(value) < 0.6  # The lower part of the colour map.
                axes.text(column, row, _number(value), ha="center", va="center", fontsize=8,
                          color=GROUND if dark else INK)  # fmt: skip


DRAWERS = {"line": _line, "bar": _bar, "scatter": _scatter, "pie": _pie, "heatmap": _heatmap}


# --- axes -----------------------------------------------------------------------------------------


def _places(chart: dict[str, Any], series: dict[str, Any]) -> list[Any]:
    if chart["x_kind"] == "category":
        return list(range(len(series["values"])))
    return [datetime.fromisoformat(x) for x in series["x"]] if chart["x_kind"] == "time" else series["x"]


def _dress(figure: Any, axes: Any, chart: dict[str, Any]) -> None:
    axes.grid(True, axis="both" if chart["kind"] == "scatter" else "y")
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(_tick))
    axes.set_xlabel(chart["x_label"])
    axes.set_ylabel(chart["y_label"])
    if chart["x_kind"] == "category":
        _ticks(axes, "x", chart["series"][0]["x"], most=24 if chart["kind"] == "bar" else MAX_TICKS)
    elif chart["x_kind"] == "time":
        locator: Any = dates.AutoDateLocator()
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    else:
        whole = all(x == int(x) for series in chart["series"] for x in series["x"])
        axes.xaxis.set_major_locator(ticker.MaxNLocator(nbins=10, integer=whole))
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(_tick))
    if len(chart["series"]) > 1:
        figure.legend(loc="outside lower center", ncols=min(len(chart["series"]), 5), fontsize=9)


def _ticks(axes: Any, side: str, labels: list[str], most: int = MAX_TICKS) -> None:
    """Name every category, or every n-th where there are many; long names lean."""
    step = -(-len(labels) // most)
    shown = [_short(label) for label in labels[::step]]
    lean = side == "x" and len(shown) * (1 + max(map(len, shown), default=0)) > LINE_CHARACTERS
    options = {"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if lean else {}
    set_ticks = axes.set_xticks if side == "x" else axes.set_yticks
    set_ticks(range(0, len(labels), step), shown, **options)


def _short(label: str) -> str:
    return label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 1]}…"


def _number(value: float) -> str:
    """A number as people write it, in four or more digits."""
    if value and not 1e-4 <= abs(value) < 1e12:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1e5 else f"{value:,.4g}"


def _tick(value: float, position: object = None) -> str:
    del position
    if value and not 1e-4 <= abs(value) < 1e12:
        return f"{value:.3g}"
    return f"{value:,.6f}".rstrip("0").rstrip(".")


# --- one after another ----------------------------------------------------------------------------


def _answer(line: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        svg, png = draw(json.loads(line))
    except Exception as error:  # noqa: BLE001 - whatever it is, the next chart can be drawn
        return {"error": f"{type(error).__name__}: {error}"[:300]}, b""
    return {"svg": len(svg), "png": len(png)}, svg + png


def main() -> None:
    """Draw until the input ends."""
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    there = {font.name for font in font_manager.fontManager.ttflist}
    matplotlib.rcParams.update(STYLE | {"font.family": [font for font in FONTS if font in there]})
    for line in sys.stdin.buffer:
        head, pictures = _answer(line)
        answers.write(json.dumps(head).encode() + b"\n" + pictures)
        answers.flush()


if __name__ == "__main__":
    main()
