"""What an outbox entry tells of auto top-up (lua/state/top_up.lua): the account's word, and a request that it makes."""

from __future__ import annotations

from collections.abc import Mapping

from meter.engine.outbox import Entry
from meter.engine.top_ups import read_word
from meter.store.top_up_rows import TopUpRow

TOP_UP = "top_up"
"""The member that tells the word; rows have only its state and the id of a request."""


def word_after(entry: Entry) -> str | None:
    """The word of the account behind an entry that changed it; None where there is none now."""
    return str(entry.detail[TOP_UP]) or None


def request_in(entry: Entry) -> TopUpRow | None:
    """The request that an entry makes. Raises `ValueError` for a word that is none."""
    word = read_word(str(entry.detail[TOP_UP]))
    if word is None or word.top_up_id is None:
        return None
    return TopUpRow(
        top_up_id=word.top_up_id,
        user_id=entry.user_id,
        **word.terms._asdict(),
        created_at_ms=entry.created_at_ms,
        next_attempt_at_ms=entry.created_at_ms,
    )


def shown(text: object) -> Mapping[str, str | None]:
    """What a transaction's row has of the word: nothing that the payer is known by."""
    word = read_word(str(text))
    if word is None:
        return {"state": "none", "top_up_id": None}
    return {"state": _STATES[word.state], "top_up_id": word.top_up_id}


_STATES = {"a": "on", "o": "off", "w": "waiting"}
