"""U5: one format for every line, no password in any, nothing that breaks one; changes told once and not too often."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Iterator

import pytest

from meter.log import LINES_BURST, LINES_REFILL_SECONDS, VALUE_CHARS_MAX, Changes, Format, configure, logger

_log = logger("meter.tested")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The root logger is left as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_u5_a_line_of_text_is_time_level_name_event_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure()
    _log.warning("the store is away", partition=0, why='connection "refused"')
    (line,) = lines(capsys)
    time, _, rest = line.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", time)
    assert rest == r'WARNING meter.tested: the store is away partition=0 why="connection \"refused\""'


def test_u5_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure("json")
    _log.warning("the store is away", partition=0, why="no\nroute")
    logging.getLogger("uvicorn.error").error("a line of %s", "uvicorn's")
    first, second = [json.loads(line) for line in lines(capsys)]
    assert list(first)[:4] == ["timestamp", "level", "logger", "event"]
    assert (first["event"], first["partition"], first["why"]) == ("the store is away", 0, "no\nroute")
    assert (second["logger"], second["level"], second["event"]) == ("uvicorn.error", "error", "a line of uvicorn's")


@pytest.mark.parametrize("form", ["text", "json"])
def test_u5_a_bug_is_told_with_its_traceback(form: Format, capsys: pytest.CaptureFixture[str]) -> None:
    configure(form)
    try:
        raise ZeroDivisionError("at redis://u:hunter2@h/0")
    except ZeroDivisionError:
        _log.exception("internal error", id="x")
    said = capsys.readouterr().err
    assert "Traceback" in said and "ZeroDivisionError" in said and "hunter2" not in said
    assert form == "text" or "Traceback" in json.loads(said)["exception"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_u5_no_value_breaks_a_line_colours_a_terminal_or_tells_a_password(
    form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(form)
    _log.info("seen\r\nfake line", who="\x1b[31mred\x85\u2028", url="postgresql://u:hunter2@h/d", long="x" * 99_999)
    logging.getLogger("arq.worker").warning("lost redis://:hunter2@h")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("of mongodb://u:hunter2@h", UserWarning, stacklevel=1)
        logging.captureWarnings(False)
    said = capsys.readouterr().err
    assert said.count("\n") == 3 and "hunter2" not in said
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x85\u2028]", said)
    assert len(said) < VALUE_CHARS_MAX + 1500


def test_u5_the_level_is_kept_and_an_application_of_somebody_elses_sees_whole_lines(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure("text", "warning")
    _log.info("not told")
    _log.warning("told", by=1)
    assert [line.rpartition(": ")[2] for line in lines(capsys)] == ["told by=1"]
    assert caplog.messages == ["told by=1"]
    configure("text", "debug")
    configure("json", "debug")
    _log.debug("once")
    assert len(lines(capsys)) == 1


def test_u5_a_change_is_told_once_and_a_flapping_thing_seldom(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    changes = Changes(_log, lambda: now)
    changes.tell("redis", "ok", "Redis is back")
    assert caplog.messages == []
    for _ in range(3):
        changes.tell("redis", "lost", "Redis is lost", {"why": "x"})
        changes.tell("store", "lost", "the store is lost")
    assert caplog.messages == ["Redis is lost why=x", "the store is lost"]
    for _ in range(50):
        changes.tell("redis", "ok", "Redis is back")
        changes.tell("redis", "lost", "Redis is lost")
    assert len(caplog.messages) == LINES_BURST + 1
    now += LINES_REFILL_SECONDS
    last = "Redis is back" if "lost" in caplog.messages[-1] else "Redis is lost"
    changes.tell("redis", "ok" if "back" in last else "lost", last)
    assert (caplog.messages[-1], len(caplog.messages)) == (last, LINES_BURST + 2)
