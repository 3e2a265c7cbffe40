"""The answers of the plain case, put in full: the scripts say only what their sender does not know (lua/plain).

A line begins with the letter of a verb. Redis keeps the answers of each sender's last batch as they are, so a short
one costs less of its time, of the append-only file and of the way here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from meter.engine.answers import Operation


def in_full(lines: Sequence[str], asked: Sequence[Operation], partition: int, sender: str, number: int) -> list[str]:
    """Lines as `Declared.read` reads them: the answers to the operations of one batch of a sender. Raises
    `ValueError` where these are not as many.
    """
    before, behind = f"{partition}-", f"-{sender}-{number}"
    full = []
    for line, one in zip(lines, asked, strict=True):
        told = _TOLD.get(line[:1])
        full.append(line if told is None else told(line.split(" "), one, before, behind))
    return full


def _deduct(told: list[str], one: Operation, before: str, behind: str) -> str:
    _, seq, available, reserved = told
    return f"0 ok {one[4]} {before}{seq}{behind} {one[5]} {one[5]} 0 {available} {reserved} 0"


def _reserve(told: list[str], one: Operation, _: str, __: str) -> str:
    _, expires_at_ms, available, reserved = told
    return f"0 ok {one[4]} {one[5]} {one[6]} {expires_at_ms} {one[7]} {available} {reserved} 0"


def _commit(told: list[str], one: Operation, before: str, behind: str) -> str:
    _, user_id, seq, charged, released, available, reserved = told
    return f"0 ok {user_id} {one[4]} {before}{seq}{behind} {charged} {released} 0 0 0 {available} {reserved} 0"


def _release(told: list[str], one: Operation, before: str, behind: str) -> str:
    _, user_id, seq, released, available, reserved = told
    return f"0 ok {user_id} {one[4]} {before}{seq}{behind} {released} 0 {available} {reserved} 0"


def _deduct_usage(told: list[str], one: Operation, before: str, behind: str) -> str:
    _, seq, amount, available, reserved, price = told
    return f"0 ok {one[4]} {before}{seq}{behind} {amount} {amount} 0 {available} {reserved} 0 {price}"


def _reserve_usage(told: list[str], one: Operation, _: str, __: str) -> str:
    _, expires_at_ms, amount, available, reserved, *price = told
    full = f"0 ok {one[4]} {one[5]} {amount} {expires_at_ms} {one[7]} {available} {reserved} 0"
    return f"{full} {price[0]}" if price else full


def _commit_usage(told: list[str], one: Operation, before: str, behind: str) -> str:
    return f"{_commit(told[:-1], one, before, behind)} {told[-1]}"


_TOLD: Mapping[str, Callable[[list[str], Operation, str, str], str]] = {
    "d": _deduct,
    "r": _reserve,
    "c": _commit,
    "l": _release,
    "D": _deduct_usage,
    "R": _reserve_usage,
    "C": _commit_usage,
}
