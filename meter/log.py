"""Log lines: what happened, in words, with its fields; one format for us and for the libraries in our processes.

    _log = logger("meter.flusher")
    _log.warning("the store is away", partition=0, why="connection refused")

Lines go through the standard library, so an application that embeds `Meter` finds them in its own log, fields and all.
A process of ours calls `configure` once: then everything, uvicorn's and arq's lines too, goes to stderr, text or JSON.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import structlog
from structlog.stdlib import BoundLogger, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]

VALUE_CHARS_MAX = 2_000
"""A value is cut there: some come from clients, and drivers quote whole statements."""
TRACE_CHARS_MAX = 20_000
LINES_BURST = 6
LINES_REFILL_SECONDS = 10.0
"""How often one thing may be told to change: so many times at once, then once in so long."""

NO_FIELDS: Mapping[str, object] = {}

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*(?=@)|(?<=sentinel_password=)[^&\s']*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN = re.compile(r"[^\s\"=]+")
_FIELDS = "meter_fields"  # the attribute of a record that carries the fields of a line of ours
_EVENT = "meter_event"
_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access")
_CHATTY = ("arq", "alembic")  # their infos are of no interest to an operator


@dataclass(slots=True)
class CurrentRequest:
    """The request that a task works for. Tasks that it starts and that outlive it see that it `is_over`."""

    request_id: str
    is_over: bool = False


CURRENT_REQUEST: ContextVar[CurrentRequest | None] = ContextVar("meter_request", default=None)
"""Its id is a field of every line that is logged meanwhile."""


def current_request_id() -> str:
    """The id of the request that is being answered; "" where there is none."""
    current = CURRENT_REQUEST.get()
    return "" if current is None or current.is_over else current.request_id


def logger(name: str) -> BoundLogger:
    """A logger whose methods take an event and its fields: `_log.info("started", port=8000)`."""
    found: BoundLogger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            _to_record,
        ],
        wrapper_class=BoundLogger,
        cache_logger_on_first_use=True,
    )
    return found


def configure(form: Format = "text", level: Level = "info") -> None:
    """Sends the lines of this process to stderr. A second call changes format and level."""
    root = logging.getLogger()
    for handler in [found for found in root.handlers if isinstance(found, _Stderr)]:
        root.removeHandler(handler)
    handler = _Stderr()
    handler.setFormatter(_formatter(form))
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    for name in _UVICORN:  # as a server of before may have left them
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.captureWarnings(True)


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return _CREDENTIALS.sub("…", url)


class Changes:
    """Tells each change of state once, and not too often: a thing that flaps must not fill the disk."""

    def __init__(self, log: BoundLogger, now: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._now = now
        self._told: dict[str, str] = {}
        self._tokens: dict[str, tuple[float, float]] = {}

    def tell(
        self, what: str, state: str, event: str, fields: Mapping[str, object] = NO_FIELDS, level: Level = "warning"
    ) -> None:
        """Logs `event` when `what` was last told to be in another state than `state`; it begins as "ok"."""
        if self._told.get(what, "ok") == state or not self._may_tell(what):
            return
        self._told[what] = state
        getattr(self._log, level)(event, **fields)

    def _may_tell(self, what: str) -> bool:
        now = self._now()
        left, since = self._tokens.get(what, (float(LINES_BURST), now))
        left = min(float(LINES_BURST), left + (now - since) / LINES_REFILL_SECONDS)
        if left < 1:
            return False
        self._tokens[what] = left - 1, now
        return True


class _Stderr(logging.StreamHandler[Any]):
    """Writes to what is stderr now: tests and daemons replace it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, _: Any) -> None: ...


def _to_record(_: WrappedLogger, _method: str, line: EventDict) -> Mapping[str, Any]:
    """The arguments of a call of the standard library's logger: a text for whoever knows no fields, and the fields."""
    options = {name: line.pop(name) for name in ("exc_info", "stack_info") if name in line}
    event = line.pop("event")
    request_id = current_request_id()
    if request_id:
        line.setdefault("request_id", request_id)
    return {"msg": _text(event, line), "extra": {_EVENT: event, _FIELDS: line}, **options}


def _formatter(form: Format) -> ProcessorFormatter:
    shared: list[Processor] = [
        _from_record,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _presentable,
    ]
    last = _as_json if form == "json" else _as_text
    return ProcessorFormatter(processors=[*shared, ProcessorFormatter.remove_processors_meta, last])


def _from_record(_: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Event and fields of a line of ours; the message of anybody else's."""
    record: logging.LogRecord = line["_record"]
    if hasattr(record, _EVENT):
        line["event"] = getattr(record, _EVENT)
        line.update(getattr(record, _FIELDS))
    return line


def _presentable(_: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    return {
        name: _shown(value, TRACE_CHARS_MAX if name == "exception" else VALUE_CHARS_MAX) for name, value in line.items()
    }


def _shown(value: object, chars_max: int) -> object:
    if not isinstance(value, str):
        return value
    text = without_password(value)
    return text if len(text) <= chars_max else f"{text[:chars_max]}… ({len(text)} characters)"


def _as_json(_: WrappedLogger, _method: str, line: EventDict) -> str:
    first = {name: line.pop(name) for name in ("timestamp", "level", "logger", "event")}
    text = orjson.dumps({**first, **line}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # some readers end a line at U+0085 and U+2028


def _as_text(_: WrappedLogger, _method: str, line: EventDict) -> str:
    timestamp, level, name, event = (line.pop(part) for part in ("timestamp", "level", "logger", "event"))
    exception = line.pop("exception", None)
    head = f"{timestamp} {level.upper()} {name}: {_text(event, line)}"
    return head if exception is None else f"{head}\n{exception}"


def _text(event: object, fields: Mapping[str, object]) -> str:
    """The event, then each field as name=value; no value breaks the line or colours a terminal."""
    return " ".join([_one_line(str(event)), *(f"{name}={_value(value)}" for name, value in fields.items())])


def _value(value: object) -> str:
    if isinstance(value, dict | list):
        return _one_line(orjson.dumps(value, default=str).decode())
    text = _one_line(str(value))
    return text if _PLAIN.fullmatch(text) else '"' + text.replace('"', '\\"') + '"'


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
