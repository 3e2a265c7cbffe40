"""The journal: what goes in comes out, a line that was cut off is harmless, and a foreign file stays as it is."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from meter.replay.journal import Journal, JournalError, read_journal
from meter.replay.record import Done, Event, Record, Run, Sent, Verb

RUN = Run("abc", "http://127.0.0.1:1", "t.csv", "2026-01-01T00:00:00.000+00:00")
EVENTS: tuple[Event, ...] = (
    Sent(Verb.GRANT, "u", "u", Decimal("1000.5")),
    Done(Verb.GRANT, "u", 200),
    Sent(Verb.RESERVE, "r", "u", Decimal(100)),
    Done(Verb.RESERVE, "r", 201, doubtful=True),
    Sent(Verb.COMMIT, "r", "u", Decimal(120)),
    Done(Verb.COMMIT, "r", 200, Decimal("119.000001"), Decimal("0.999999"), late=True),
    Sent(Verb.RESERVE, "s", "u", Decimal(100)),
)


def write(path: Path, *events: Event) -> None:
    with Journal(path, RUN) as journal:
        for event in events:
            journal.write(event)


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    live = Record()
    for event in EVENTS:
        live.apply(event)
    write(tmp_path / "j", *EVENTS)

    assert read_journal(tmp_path / "j") == (RUN, live)


def test_an_event_is_in_the_file_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "j", RUN) as journal:
        journal.write(EVENTS[0])

        assert read_journal(tmp_path / "j")[1].accounts["u"].asked == Decimal("1000.5")


def test_a_line_that_was_cut_off_never_happened_even_when_a_run_follows(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, *EVENTS)
    path.write_bytes(path.read_bytes()[:-7])

    assert "s" not in read_journal(path)[1].pending
    write(path, Sent(Verb.GRANT, "v", "v", Decimal(1)))
    assert set(read_journal(path)[1].accounts) == {"u", "v"}


@pytest.mark.parametrize("text", [b"TIMESTAMP,ContextTokens\n1,2", b"\n", b'{"a":1}\n'])
def test_a_file_that_is_no_journal_is_left_alone(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "j"
    path.write_bytes(text)

    for use in (lambda: write(path), lambda: read_journal(path)):
        with pytest.raises(JournalError, match=f"^{path}:1: is not a line"):
            use()
    assert path.read_bytes() == text


def test_complaints_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, *EVENTS)
    path.write_bytes(path.read_bytes() + b"oops\n" + path.read_bytes().splitlines(keepends=True)[1])
    with pytest.raises(JournalError, match=f"^{path}:9: is not a line"):
        read_journal(path)

    write(tmp_path / "k", Done(Verb.COMMIT, "never", 200))
    with pytest.raises(JournalError, match=":2: answers a call that the journal does not have"):
        read_journal(tmp_path / "k")


def test_a_journal_that_cannot_be_opened_or_has_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        read_journal(tmp_path / "none")
    with pytest.raises(JournalError, match="Is a directory"):
        write(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(JournalError, match="has no run in it"):
        read_journal(tmp_path / "empty")
    write(tmp_path / "empty")
    assert read_journal(tmp_path / "empty")[0] == RUN


def test_a_full_disk_is_reported() -> None:
    with pytest.raises(JournalError, match="/dev/full: No space left"):
        write(Path("/dev/full"))
