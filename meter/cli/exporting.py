"""`meter export`: everything of a kind as CSV or NDJSON, page by page, and `meter import grants`: what was exported."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer

from meter.cli.calling import Called, Key, Url, document_text, over

What = Literal["transactions", "grants", "users", "usage"]
Format = Literal["csv", "ndjson"]
PAGE = 500
USAGE_BY = ("day", "user", "model", "key")

exports = typer.Typer()


class _Sheet:
    """Where rows go: how many they are, and the SHA-256 of it all. The members of the first row are a CSV's columns."""

    def __init__(self, out: IO[bytes], kind: Format) -> None:
        self._out, self._kind = out, kind
        self._columns: list[str] = []
        self._hash = sha256()
        self.rows = 0

    def add(self, row: dict[str, Any]) -> None:
        """The next row."""
        if self._kind == "ndjson":
            text = document_text(row) + "\n"
        else:
            head = "" if self._columns else _line(self._columns_of(row))
            text = head + _line([_cell(row.get(name)) for name in self._columns])
        data = text.encode()
        self._hash.update(data)
        self._out.write(data)
        self.rows += 1

    @property
    def digest(self) -> str:
        """Of all that was written."""
        return self._hash.hexdigest()

    def _columns_of(self, row: dict[str, Any]) -> list[str]:
        self._columns = list(row)
        return self._columns


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cell(value: object) -> str:
    """A value in a table; a text that a spreadsheet would run gets an apostrophe in front."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    text = document_text(value)
    return text[1:-1] if text.startswith('"') else text


@exports.command("export")
def export_(
    what: Annotated[What, typer.Argument()],
    since: Annotated[datetime | None, typer.Option("--from", help="From that time on, in UTC.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", help="Before that time, in UTC. [now]")] = None,
    kind: Annotated[Format, typer.Option("--format")] = "csv",
    out: Annotated[Path | None, typer.Option(help="The file. [stdout]", show_default=False)] = None,
    url: Url = "",
    key: Key = "",
) -> None:
    """Write all transactions, grants, users or usage; how many rows and their SHA-256 on stderr.

    Transactions that come in after it began are left out. Grants and users are as they are when their page is read;
    times of usage are where its buckets begin.
    """
    since, until = _utc(since), _utc(until)

    async def ask(meter: Any, _: str) -> Any:
        from meter.contract.answers import Refusal

        with ExitStack() as stack:
            file = stack.enter_context(out.open("wb")) if out is not None else sys.stdout.buffer
            sheet = _Sheet(file, kind)
            async for page in _pages(meter, what, since, until):
                if isinstance(page, Refusal):
                    return page
                for row in page.items if hasattr(page, "items") else page:
                    sheet.add(row if isinstance(row, dict) else row.model_dump(exclude_unset=what == "usage"))
        typer.echo(f"{sheet.rows} rows, SHA-256 {sheet.digest}", err=True)
        return _Done()

    Called(over(url, key), as_json=False).tell(ask, lambda _: "")


class _Done:
    """The answer of a command that has printed all there is."""


Page = Callable[[str], Awaitable[Any]]


def _pages(meter: Any, what: What, since: datetime | None, until: datetime | None) -> AsyncIterator[Any]:
    """Every page; the last may be a refusal."""
    if what == "grants":
        return _grants(meter)
    before = until or datetime.now(UTC)
    pages: dict[str, Page] = {
        "transactions": lambda cursor: meter.transactions(from_=since, to=before, limit=PAGE, cursor=cursor),
        "users": lambda cursor: meter.users(limit=PAGE, cursor=cursor),
        "usage": lambda cursor: meter.figures(*USAGE_BY, from_=since, to=until, limit=PAGE, cursor=cursor),
    }
    return _all(pages[what])


async def _all(page_from: Page) -> AsyncIterator[Any]:
    cursor: str | None = ""
    while cursor is not None:
        page = await page_from(cursor)
        yield page
        cursor = getattr(page, "next_cursor", None)


async def _grants(meter: Any) -> AsyncIterator[Any]:
    """The grants of each user, with whose they are."""
    from meter.contract.answers import Refusal

    async for users in _all(lambda cursor: meter.users(limit=PAGE, cursor=cursor)):
        if isinstance(users, Refusal):
            yield users
            return
        for user in users.items:
            async for page in _all(_of_user(meter, user.user_id)):
                if isinstance(page, Refusal):
                    yield page
                    return
                yield [{"user_id": user.user_id, **grant.model_dump()} for grant in page.items]


def _of_user(meter: Any, user_id: str) -> Page:
    return lambda cursor: meter.grants(user_id, state="all", limit=PAGE, cursor=cursor)


def _utc(when: datetime | None) -> datetime | None:
    return None if when is None else when.replace(tzinfo=UTC) if when.tzinfo is None else when
