"""The answers that nearly all traffic gets, each written out: a third of what the way for every answer costs.

Byte for byte what meter/api/rendering.py makes of the declaration (tests/api/test_plain_answers.py). Each function
takes the fields of its line by the names that the declaration has for them (`check` compares).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from inspect import signature

from meter.amount import AmountScale
from meter.clock import time_text
from meter.engine.answers import NOTHING, Balances
from meter.engine.operations import COMMIT, DEDUCT, RELEASE, RESERVE

KEPT_MAX = 1024
"""Texts of amounts that are kept."""

Write = Callable[..., str]
"""From the texts of an answer's fields and its balances to the members of the JSON."""


class PlainAnswers:
    """`of` has one for each operation that is answered so."""

    def __init__(self, scale: AmountScale) -> None:
        self._often = lru_cache(KEPT_MAX)(scale.text_of)  # a price, nothing: the same few in most answers
        self._seldom = scale.text_of
        self._sum = scale.text
        self.of: Mapping[str, Write] = {
            DEDUCT.name: self._deduct,
            RESERVE.name: self._reserve,
            COMMIT.name: self._commit,
            RELEASE.name: self._release,
        }
        for declared in (DEDUCT, RESERVE, COMMIT, RELEASE):
            check(self.of[declared.name], (*declared.answer, *Balances._fields))

    def _deduct(
        self,
        user_id: str,
        transaction_id: str,
        amount: str,
        taken: str,
        uncovered: str,
        available: str,
        reserved: str,
        debt: str,
    ) -> str:
        text = self._often
        return (
            f'"user_id":"{user_id}","transaction_id":{_id_or_null(transaction_id)},"amount":{text(amount)},'
            f'"taken":{text(taken)},"uncovered":{text(uncovered)}'
            f"{self._balances(available, reserved, debt)}"
        )

    def _reserve(
        self,
        user_id: str,
        reservation_id: str,
        amount: str,
        expires_at_ms: str,
        expires_in_ms: str,
        available: str,
        reserved: str,
        debt: str,
    ) -> str:
        return (
            f'"user_id":"{user_id}","reservation_id":"{reservation_id}","amount":{self._often(amount)},'
            f'"expires_at":{time_text(int(expires_at_ms))},"expires_in":{seconds_text(int(expires_in_ms))}'
            f"{self._balances(available, reserved, debt)}"
        )

    def _commit(
        self,
        user_id: str,
        reservation_id: str,
        transaction_id: str,
        charged: str,
        released: str,
        forfeited: str,
        uncovered: str,
        late: str,
        available: str,
        reserved: str,
        debt: str,
    ) -> str:
        text = self._often
        return (
            f'"user_id":"{user_id}","reservation_id":"{reservation_id}","transaction_id":{_id_or_null(transaction_id)},'
            f'"charged":{text(charged)},"released":{text(released)},"forfeited":{text(forfeited)},'
            f'"uncovered":{text(uncovered)},"late":{"true" if late == "1" else "false"}'
            f"{self._balances(available, reserved, debt)}"
        )

    def _release(
        self,
        user_id: str,
        reservation_id: str,
        transaction_id: str,
        released: str,
        forfeited: str,
        available: str,
        reserved: str,
        debt: str,
    ) -> str:
        text = self._often
        return (
            f'"user_id":"{user_id}","reservation_id":"{reservation_id}","transaction_id":{_id_or_null(transaction_id)},'
            f'"released":{text(released)},"forfeited":{text(forfeited)}'
            f"{self._balances(available, reserved, debt)}"
        )

    def _balances(self, available: str, reserved: str, debt: str) -> str:
        free, held = self._seldom(available), self._often(reserved)
        balance = free if held == "0" else self._sum(int(available) + int(reserved))
        return f',"credits":{free},"balance":{balance},"reserved":{held},"available":{free},"debt":{self._often(debt)}'


def check(write: Write, fields: tuple[str, ...]) -> None:
    """Raises `TypeError` where a function does not take exactly these fields, in their order."""
    taken = tuple(signature(write).parameters)
    if taken != fields:
        raise TypeError(f"{write.__qualname__} takes {taken}, and the answer has {fields}")


def _id_or_null(text: str) -> str:
    return "null" if text == NOTHING else f'"{text}"'


def seconds_text(ms: int) -> str:
    """Milliseconds as seconds, a JSON number."""
    return str(ms // 1000) if ms % 1000 == 0 else f"{ms / 1000:.3f}".rstrip("0")
