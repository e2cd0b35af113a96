"""What is noted on a document, and what a search asks of it: flat names with plain values."""

from collections.abc import Mapping
from typing import Any, cast

from app.errors import InvalidRequest

MAX_NAMES = 50
MAX_NAME = 100
MAX_VALUES = 100
MAX_TEXT = 1_000
# A document's own fields, which filters may name beside its metadata.
FIELDS = ("document_id", "title", "source", "media_type")

Filters = Mapping[str, list[Any]]


def checked_metadata(metadata: Mapping[str, Any], field: str = "metadata") -> dict[str, Any]:
    """The metadata, if it can be kept.

    Raises:
        InvalidRequest: naming the field.
    """
    _check_names(metadata, field)
    for name, value in metadata.items():
        if name in FIELDS:
            raise InvalidRequest(
                f"{name} is a field of the document itself: choose another name", field=f"{field}.{name}"
            )
        _values(value, f"{field}.{name}")
    return dict(metadata)


def checked_filters(filters: Mapping[str, Any] | None, field: str = "filters") -> Filters:
    """The filters, each as the list of values of which one must be there.

    Raises:
        InvalidRequest: naming the field.
    """
    _check_names(filters or {}, field)
    return {name: _values(value, f"{field}.{name}") for name, value in (filters or {}).items()}


def _check_names(values: Mapping[str, Any], field: str) -> None:
    if len(values) > MAX_NAMES:
        raise InvalidRequest(f"at most {MAX_NAMES} names", field=field)
    for name in values:
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidRequest(f"a name has 1 to {MAX_NAME} printable characters", field=f"{field}.{name[:MAX_NAME]}")


def _values(value: Any, field: str) -> list[Any]:
    values = cast("list[Any]", value) if isinstance(value, list) else [value]
    if not 1 <= len(values) <= MAX_VALUES:
        raise InvalidRequest(f"a list has 1 to {MAX_VALUES} values", field=field)
    for each in values:
        if not isinstance(each, str | int | float):
            raise InvalidRequest("a text, a number, true or false, or a list of these", field=field)
        if isinstance(each, str) and len(each) > MAX_TEXT:
            raise InvalidRequest(f"a text has at most {MAX_TEXT} characters", field=field)
    return values
