"""What credit-management kept, document by document: its MongoDB, or a dump of that in JSON.

A dump is a folder with `<collection>.json`, `.jsonl` or `.ndjson` for each collection, as `mongoexport` writes them
(one document a line, or one array), or one file with an object `{collection: [documents]}`. MongoDB's extended JSON is
read. Numbers keep their digits: none of a dump becomes a float, and a double of MongoDB means its shortest decimal.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from meter.errors import ConfigError, StoreUnavailable

PLANS = "credit_subscription_plans"
TRANSACTIONS = "credit_transactions"
EXPIRIES = "credit_expiry_records"
RESERVED = "credit_reserved"
SUBSCRIPTIONS = "credit_user_subscriptions"
COLLECTIONS = (PLANS, TRANSACTIONS, EXPIRIES, RESERVED, SUBSCRIPTIONS)
"""What is read. The other collections tell nothing that a balance or a plan depends on."""

SERVER_PATIENCE_MS = 10_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ENDINGS = ("json", "jsonl", "ndjson")


@dataclass(frozen=True, slots=True)
class Document:
    """A document, or why there is none; `where` tells a reader which it is."""

    collection: str
    where: str
    values: Mapping[str, object]
    fault: str = ""


class Source(Protocol):
    """Where documents come from."""

    name: str

    def documents(self, collection: str) -> AsyncIterator[Document]:
        """Every document of a collection, in the order in which it was kept. Raises `StoreUnavailable`."""
        ...


def open_source(source: str, database: str) -> Source:
    """The source that a URL or a path means. Raises `ConfigError`."""
    if source.startswith(("mongodb://", "mongodb+srv://")):
        return MongoSource(source, database)
    if "://" in source:
        raise ConfigError(f"{source.partition('://')[0]}:// is no source: mongodb://…, a folder or a file of JSON")
    path = Path(source)
    if path.is_dir():
        found = {name: file for name in COLLECTIONS if (file := _file_of(path, name)) is not None}
        if not found:
            raise ConfigError(f"{path}: no {COLLECTIONS[0]}.json or other collection of credit-management in it")
        return FolderSource(path, found)
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file or folder")
    return FileSource(path)


def _file_of(folder: Path, collection: str) -> Path | None:
    return next((file for ending in _ENDINGS if (file := folder / f"{collection}.{ending}").is_file()), None)


class FolderSource:
    """A folder with a file for each collection; one that is missing was empty."""

    def __init__(self, folder: Path, files: Mapping[str, Path]) -> None:
        self.name = str(folder)
        self._files = files

    async def documents(self, collection: str) -> AsyncIterator[Document]:
        """Lines, or the members of an array."""
        file = self._files.get(collection)
        if file is None:
            return
        with _opened(file) as lines:
            first = next((line for line in lines if line.strip()), "")
        if first.lstrip().startswith("["):
            for number, one in enumerate(_parsed_array(file), 1):
                yield _document(collection, f"{file.name}[{number}]", one)
            return
        with _opened(file) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _of_line(collection, f"{file.name}:{number}", line)


class FileSource:
    """One file: `{collection: [documents]}`."""

    def __init__(self, file: Path) -> None:
        self.name = str(file)
        try:
            found = _parsed(file.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            raise ConfigError(f"{file}: cannot be read as JSON: {error}") from None
        if not isinstance(found, dict) or not set(found) & set(COLLECTIONS):
            raise ConfigError(f"{file}: must be an object of collections, such as {COLLECTIONS[0]}")
        self._found = found

    async def documents(self, collection: str) -> AsyncIterator[Document]:
        """The members of the collection's array."""
        members = self._found.get(collection, [])
        if not isinstance(members, list):
            raise ConfigError(f"{self.name}: {collection} must be an array")
        for number, one in enumerate(members, 1):
            yield _document(collection, f"{collection}[{number}]", one)


class MongoSource:
    """The database itself, which is only read."""

    def __init__(self, url: str, database: str) -> None:
        if find_spec("pymongo") is None:
            raise ConfigError("mongodb:// needs a driver: pip install 'meter-sidecar[mongo]'")
        from pymongo.errors import PyMongoError  # noqa: PLC0415 - an extra
        from pymongo.uri_parser import parse_uri  # noqa: PLC0415

        try:
            named = parse_uri(url, warn=False)["database"] if url.startswith("mongodb://") else None
        except (PyMongoError, ValueError) as error:
            raise ConfigError(f"the source is no URL of MongoDB: {error}") from None
        self._url = url
        asked = re.search(r"serverselectiontimeoutms=(\d+)", url, re.IGNORECASE)
        self._patience_ms = int(asked[1]) if asked else SERVER_PATIENCE_MS
        self._database = named or database
        self.name = f"MongoDB, database {self._database}"

    async def documents(self, collection: str) -> AsyncIterator[Document]:
        """In natural order, in batches."""
        from pymongo import AsyncMongoClient  # noqa: PLC0415
        from pymongo.errors import PyMongoError  # noqa: PLC0415

        try:
            async with AsyncMongoClient[dict[str, object]](
                self._url, serverSelectionTimeoutMS=self._patience_ms
            ) as client:
                async for found in client[self._database][collection].find({}):
                    yield _document(collection, f"{collection} {found.get('_id')}", found)
        except PyMongoError as error:
            raise StoreUnavailable(f"the source: {str(error).partition(' (configured')[0][:300]}") from None


def _opened(file: Path):  # type: ignore[no-untyped-def]
    return file.open(encoding="utf-8-sig", errors="surrogateescape")


def _parsed(text: str) -> object:
    try:
        return json.loads(text, parse_float=Decimal)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _parsed_array(file: Path) -> Iterator[object]:
    with _opened(file) as lines:
        try:
            found = _parsed(lines.read())
        except ValueError as error:
            raise ConfigError(f"{file}: cannot be read as JSON: {error}") from None
    yield from found if isinstance(found, list) else [found]


def _of_line(collection: str, where: str, line: str) -> Document:
    try:
        return _document(collection, where, _parsed(line))
    except ValueError as error:
        return Document(collection, where, {}, f"is no JSON: {error}")


def _document(collection: str, where: str, value: object) -> Document:
    if not isinstance(value, dict):
        return Document(collection, where, {}, "is no JSON object")
    return Document(collection, where, {str(name): _plain(one) for name, one in value.items()})


def _plain(value: object) -> object:
    """A value of extended JSON or BSON as a plain one."""
    if isinstance(value, dict) and len(value) == 1:
        [(name, inner)] = value.items()
        if name == "$oid":
            return str(inner)
        if name in ("$numberDouble", "$numberDecimal", "$numberInt", "$numberLong"):
            return _number(str(inner))
        if name == "$date":
            return _moment(_plain(inner))
    if hasattr(value, "to_decimal"):  # bson.Decimal128
        return value.to_decimal()
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    return value


def _number(text: str) -> object:
    try:
        return int(text) if text.lstrip("-").isdigit() else Decimal(text)
    except InvalidOperation:
        return text


def _moment(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + timedelta(milliseconds=value)
        except OverflowError:
            return value
    return value
