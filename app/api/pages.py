"""Keyset pages: `{"items", "next_cursor"}`, with cursors that only this server can have issued."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Depends, Query, Request
from pydantic import BaseModel, Field

from app.api.access import engine_of
from app.errors import InvalidCursor

MAX_LIMIT = 100
SIGNATURE_BYTES = 12

T = TypeVar("T")
Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


@dataclass(frozen=True)
class PageOf:
    """Which page is asked for.

    Attributes:
        of: What is listed; a cursor of another list is refused.
        limit: Rows per page.
        position: Where the last page ended, None on the first.
    """

    of: str
    limit: int
    position: str | None
    secret: bytes

    @property
    def fetch(self) -> int:
        """Rows to read: one more than shown tells whether there is a next page."""
        return self.limit + 1

    @property
    def after(self) -> UUID | None:
        """The id of the last row of the page before.

        Raises:
            InvalidCursor: when the position is none.
        """
        if self.position is None:
            return None
        try:
            return UUID(self.position)
        except ValueError as error:
            raise InvalidCursor(field="cursor") from error

    @property
    def number(self) -> int | None:
        """The number of the last row of the page before.

        Raises:
            InvalidCursor: when the position is none.
        """
        if self.position is None:
            return None
        if not self.position.isdecimal():
            raise InvalidCursor(field="cursor")
        return int(self.position)

    def cut(
        self, rows: Sequence[T], show: Callable[[T], Item], key: Callable[[T], object] = lambda row: _id_of(row)
    ) -> Page[Item]:
        """The page of the rows that were read.

        Args:
            rows: At most `fetch` rows, in order.
            show: Makes an item of a row.
            key: A row's position in the order; its `id` when left out.
        """
        shown = rows[: self.limit]
        more = len(rows) > self.limit
        cursor = _issue(self.secret, self.of, str(key(shown[-1]))) if more else None
        return Page(items=[show(row) for row in shown], next_cursor=cursor)


def _id_of(row: Any) -> object:
    return row["id"] if hasattr(row, "keys") else row.id


def paged(of: str) -> Any:
    """What a list's route lists, as it stands beside its `PageOf` in `Annotated`."""

    def page(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows per page.")] = 50,
        cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.")] = None,
    ) -> PageOf:
        secret = signing_key(request)
        return PageOf(of, limit, _read(secret, of, cursor) if cursor is not None else None, secret)

    return Depends(page)


def signing_key(request: Request) -> bytes:
    """The key that signs cursors: the same in every API process, and none that anybody outside knows."""
    return engine_of(request).settings.signing_key()


def _sign(secret: bytes, of: str, position: str) -> bytes:
    return hmac.digest(secret, f"cursor\n{of}\n{position}".encode(), hashlib.sha256)[:SIGNATURE_BYTES]


def _issue(secret: bytes, of: str, position: str) -> str:
    return base64.urlsafe_b64encode(_sign(secret, of, position) + position.encode()).decode().rstrip("=")


def _read(secret: bytes, of: str, cursor: str) -> str:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        signature, position = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:].decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidCursor(field="cursor") from error
    if not hmac.compare_digest(signature, _sign(secret, of, position)):
        raise InvalidCursor(field="cursor")
    return position
