"""create_chart: a picture of some numbers, kept as SVG and PNG."""

import math
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, NoReturn, cast

from pydantic import Field

from app import charts
from app.errors import InvalidArguments
from app.tools.tool import Arguments, Risk, Tool, ToolContext, parameters_of, validated

MAX_POINTS = 10_000
MAX_SERIES = 20
MAX_CATEGORIES = 200
MAX_BARS = 400
MAX_SLICES = 24
MAX_CELLS = 10_000
MAX_SIDE = 200
MAX_TEXT = 100
LARGEST = 1e100  # Beyond it, the distance of two numbers has no room in an axis.
YEARS = (1000, 9000)  # A time axis needs room at both ends; others are labels.
DECIMAL = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?([eE][+-]?\d{1,3})?")  # how query_database writes exact numbers

# Each name of ours with those that other libraries have for it.
NAMES = {
    "x": ("x", "labels", "categories"),
    "series": ("series", "datasets"),
    "values": ("values", "data"),
    "y": ("y",),
    "x_label": ("x_label",),
    "y_label": ("y_label",),
}
SERIES_NAMES = {"name": ("name", "label"), "values": ("values", "data", "y"), "x": ("x",)}

SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": (
        'line, bar, scatter: {"x": ["Mon", "Tue"], "series": [{"name": "Visits", "values": [3, 5]}]}. '
        'pie: {"x": ["Tea", "Coffee"], "values": [3, 5]}. '
        'heatmap: {"x": ["Mon", "Tue"], "y": ["am", "pm"], "values": [[1, 2], [3, 4]]}, a row for each y. '
        'One series may be short: {"Mon": 3, "Tue": 5}.'
    ),
    "properties": {
        "x": {
            "type": "array",
            "items": {},
            "description": "Labels; for line and scatter also numbers or ISO dates. 1, 2, 3 ... when left out.",
        },
        "series": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "values": {"type": "array", "items": {}, "description": "Numbers, or null."},
                    "x": {"type": "array", "items": {}},
                },
            },
            "description": "Each with one value for each x; null is a gap. A scatter's series may have an x of its own.",
        },
        "values": {"type": "array", "items": {}, "description": "Of a pie, or the rows of a heat map."},
        "y": {"type": "array", "items": {}, "description": "A heat map's rows by name."},
        "x_label": {"type": "string"},
        "y_label": {"type": "string"},
    },
}


class CreateChart(Arguments):
    """The arguments of `create_chart`."""

    chart_type: Literal["line", "bar", "scatter", "pie", "heatmap"] = Field(description="What is drawn.")
    data: Any = Field(json_schema_extra=SCHEMA)
    title: str = Field("", max_length=200, description="Stands above the chart.")


async def create(context: ToolContext, arguments: CreateChart) -> dict[str, Any]:
    """Draw the chart and keep both pictures."""
    chart = read_chart(arguments.chart_type, arguments.data) | {"title": _text(arguments.title, "title", 200)}
    pictures = await charts.draw(context.settings, chart, context.workspace_id)
    name = re.sub(r"[^a-z0-9]+", "-", arguments.title.lower()).strip("-")[:60] or "chart"
    kept = [
        await context.keep(f"{name}.svg", "image/svg+xml", pictures.svg),
        await context.keep(f"{name}.png", "image/png", pictures.png),
    ]
    return {"chart_type": arguments.chart_type, "title": arguments.title, "files": kept}


# --- reading the data -----------------------------------------------------------------------------


def read_chart(kind: str, data: Any) -> dict[str, Any]:
    """The data as `app/charts/drawing.py` takes it.

    Raises:
        InvalidArguments: naming what can't be drawn, where it stands and what would be right.
    """
    given = _renamed(_as_object(data), NAMES, "data")
    if kind == "heatmap":
        return _heatmap(given)
    if kind == "pie":
        return _pie(given)
    return _points(kind, given)


def _as_object(data: Any) -> dict[str, Any]:
    """The short form, label to number, in full."""
    if not isinstance(data, Mapping):
        _refuse("data", "must be an object with x and series, such as the description shows")
    given = dict(cast(Mapping[str, Any], data))
    known = {name for names in NAMES.values() for name in names}
    return given if not given or known & given.keys() else {"x": list(given), "values": list(given.values())}


def _renamed(given: Mapping[str, Any], names: Mapping[str, tuple[str, ...]], where: str) -> dict[str, Any]:
    """The members by our names.

    Raises:
        InvalidArguments: for one that has none.
    """
    ours = {other: name for name, others in names.items() for other in others}
    for key in given:
        if key not in ours:
            _refuse(where, f"{str(key)[:50]!r} means nothing here; there are {', '.join(names)}")
    return {ours[key]: value for key, value in given.items()}


def _points(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    series = [_series(kind, given, each, f"data.series[{place}]") for place, each in enumerate(_all_series(given))]
    total = sum(len(each["values"]) for each in series)
    if total > (MAX_BARS if kind == "bar" else MAX_POINTS):
        _refuse(
            "data", f"{total} points are more than the {MAX_BARS if kind == 'bar' else MAX_POINTS} of one {kind} chart"
        )
    kinds = {_kind_of_x(kind, each["x"]) for each in series}
    x_kind = kinds.pop() if len(kinds) == 1 else "category"
    if x_kind == "category":
        _check_categories(kind, series)
    if not any(value is not None for each in series for value in each["values"]):
        _refuse("data", "holds no number")
    return {"kind": kind, "x_kind": x_kind, "series": series} | _labels(given)


def _all_series(given: dict[str, Any]) -> list[dict[str, Any]]:
    if "series" not in given:
        return [{"name": given.get("y_label", ""), "values": given.get("values", given.get("y"))}]
    listed = _list(given["series"], "data.series")
    if len(listed) > MAX_SERIES:
        _refuse("data.series", f"{len(listed)} series are more than the {MAX_SERIES} that can be told apart")
    for place, each in enumerate(listed):
        if not isinstance(each, Mapping):
            _refuse(f"data.series[{place}]", 'must be an object such as {"name": "Visits", "values": [3, 5]}')
    return [_renamed(each, SERIES_NAMES, f"data.series[{place}]") for place, each in enumerate(listed)]


def _series(kind: str, given: dict[str, Any], each: dict[str, Any], where: str) -> dict[str, Any]:
    raw = _list(each.get("values"), f"{where}.values")
    _check_count(raw, f"{where}.values")
    values = [_number(value, f"{where}.values[{place}]", gap=kind != "scatter") for place, value in enumerate(raw)]
    own = each.get("x", given.get("x"))
    x = list(range(1, len(values) + 1)) if own is None else _list(own, "data.x")
    if len(x) != len(values):
        _refuse(f"{where}.values", f"there are {len(values)} values for {len(x)} x: one for each is right")
    name = _text(each.get("name", ""), f"{where}.name", MAX_TEXT)
    return {"name": name or f"series {where.rpartition('[')[2].rstrip(']')}", "x": x, "values": values}


def _kind_of_x(kind: str, x: list[Any]) -> str:
    if kind == "bar":
        return "category"
    if all(isinstance(each, int | float) and not isinstance(each, bool) for each in x):
        for place, each in enumerate(x):
            _number(each, f"data.x[{place}]", gap=False)
        return "number"
    return "time" if _are_times(x) else "category"


def _are_times(x: list[Any]) -> bool:
    try:
        times = [datetime.fromisoformat(each) for each in x]
    except (TypeError, ValueError):
        return False
    drawable = all(YEARS[0] <= time.year <= YEARS[1] for time in times)
    return drawable and len({time.tzinfo is None for time in times}) == 1


def _check_categories(kind: str, series: list[dict[str, Any]]) -> None:
    if kind == "scatter":
        _refuse("data.x", "a scatter chart needs numbers or ISO dates as x; draw labels as bars")
    if any(each["x"] != series[0]["x"] for each in series):
        _refuse("data.series", "series with labels share one data.x; only numbers and dates may differ")
    if (count := len(series[0]["x"])) > MAX_CATEGORIES:
        _refuse("data.x", f"{count} labels are more than the {MAX_CATEGORIES} that can be read; group or cut them")
    for each in series:
        each["x"] = [_label(label, f"data.x[{place}]") for place, label in enumerate(each["x"])]


def _pie(given: dict[str, Any]) -> dict[str, Any]:
    listed = _all_series(given)
    if len(listed) != 1:
        _refuse("data.series", "a pie shows one series; draw several as bars")
    raw = _list(listed[0].get("values"), "data.values")
    if len(raw) > MAX_SLICES:
        _refuse(
            "data.values", f"{len(raw)} slices are more than the {MAX_SLICES} that can be told apart; sum up the small"
        )
    values = [cast(float, _number(value, f"data.values[{place}]", gap=False)) for place, value in enumerate(raw)]
    labels = _list(given.get("x", listed[0].get("x", list(range(1, len(values) + 1)))), "data.x")
    if len(labels) != len(values):
        _refuse("data.values", f"there are {len(values)} values for {len(labels)} labels: one for each is right")
    if any(value < 0 for value in values) or not sum(values) > 0:
        _refuse("data.values", "the slices of a pie are parts of a whole: no value below 0, and not all 0")
    named = [_label(label, f"data.x[{place}]") for place, label in enumerate(labels)]
    return {"kind": "pie", "labels": named, "values": values}


def _heatmap(given: dict[str, Any]) -> dict[str, Any]:
    rows = [_list(row, f"data.values[{place}]") for place, row in enumerate(_list(given.get("values"), "data.values"))]
    width = len(rows[0])
    for place, row in enumerate(rows):
        if len(row) != width:
            _refuse(
                f"data.values[{place}]", f"has {len(row)} numbers, the first row {width}: all rows are equally long"
            )
    if len(rows) > MAX_SIDE or width > MAX_SIDE or len(rows) * width > MAX_CELLS:
        _refuse(
            "data.values", f"{len(rows)} x {width} cells are too many: at most {MAX_SIDE} a side, {MAX_CELLS} in all"
        )
    values = [
        [_number(value, f"data.values[{down}][{across}]", gap=True) for across, value in enumerate(row)]
        for down, row in enumerate(rows)
    ]
    if not any(value is not None for row in values for value in row):
        _refuse("data.values", "holds no number")
    return {
        "kind": "heatmap",
        "columns": _side(given.get("x"), width, "data.x"),
        "rows": _side(given.get("y"), len(rows), "data.y"),
        "values": values,
    } | _labels(given)


def _side(labels: Any, count: int, where: str) -> list[str]:
    named = [str(number) for number in range(1, count + 1)] if labels is None else _list(labels, where)
    if len(named) != count:
        _refuse(where, f"has {len(named)} labels for {count}: one for each is right")
    return [_label(label, f"{where}[{place}]") for place, label in enumerate(named)]


# --- single values --------------------------------------------------------------------------------


def _labels(given: dict[str, Any]) -> dict[str, str]:
    return {name: _text(given.get(name, ""), f"data.{name}", MAX_TEXT) for name in ("x_label", "y_label")}


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        _refuse(where, "must be a list with something in it")
    return cast(list[Any], value)


def _check_count(values: list[Any], where: str) -> None:
    if len(values) > MAX_POINTS:
        _refuse(where, f"{len(values)} points are more than the {MAX_POINTS} of one chart; aggregate them")


def _number(value: Any, where: str, *, gap: bool) -> float | None:
    if value is None and gap:
        return None
    if isinstance(value, str) and DECIMAL.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _refuse(where, f"must be a number{' or null' if gap else ''}, not {str(value)[:50]!r}")
    if (isinstance(value, float) and not math.isfinite(value)) or abs(value) > LARGEST:
        _refuse(where, f"must be a finite number of at most {LARGEST:g}, not {str(value)[:50]}")
    return float(value)


def _label(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        _refuse(where, f"must be a text or a number, not {str(value)[:50]!r}")
    return _text(str(value), where, MAX_TEXT)


def _text(value: Any, where: str, most: int) -> str:
    """A text without what XML can't hold."""
    if not isinstance(value, str) or len(value) > most:
        _refuse(where, f"must be a text of at most {most} characters")
    return "".join(char if char.isprintable() else " " for char in value.encode("utf-8", "replace").decode())


def _refuse(where: str, why: str) -> NoReturn:
    raise InvalidArguments(f"{where}: {why}", field=where)


TOOL = Tool(
    name="create_chart",
    description="Draw a line, bar, scatter or pie chart or a heat map. Keeps it as an SVG and a PNG file.",
    parameters=parameters_of(CreateChart),
    risk=Risk.READ,
    idempotent=True,
    call=validated(CreateChart, create),
    timeout_seconds=30.0,
)
