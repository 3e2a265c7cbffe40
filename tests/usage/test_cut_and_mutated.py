"""Recorded answers cut at every byte, in small pieces, and mutated: the same usage, less of it, or none."""

from __future__ import annotations

import contextlib
import json
import random

import pytest

from meter.charging.policy import ChargePolicy, Ending, verdict_on
from meter.usage import Number
from meter.usage.number import NUMBER_MAX
from tests.usage.test_providers import ANSWERS, answer, pieces_of, read

MUTATIONS = 40
"""Of each answer; with the seeds counted up, so that each run tries the same."""
POLICY = ChargePolicy()


def told(name: str, *pieces: bytes) -> Number | None:
    """The total that the pieces of an answer tell."""
    headers, _ = answer(name)
    reader = read(headers, *pieces)
    usage = reader.usage
    verdict = verdict_on(
        POLICY, ending=Ending.CUT, status=200, usage=None if usage is None else usage.total, estimate=100,
        failed=usage is None and reader.failed,
    )  # fmt: skip
    assert verdict.charge is (usage is not None)
    return None if usage is None else usage.total


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_is_cut_tells_no_more_than_the_whole_and_never_less_than_before(name: str) -> None:
    _, body = answer(name)
    whole, before = told(name, body) or 0, 0
    for at in range(len(body)):
        total = told(name, body[:at]) or 0
        assert before <= total <= whole, at
        before = int(total)


def has_members_twice(body: bytes) -> bool:
    """Whether an object has members of one name, of which some readers take the first, some the last."""
    twice: list[str] = []

    def see(pairs: list[tuple[str, object]]) -> None:
        names = [name for name, _ in pairs]
        twice.extend(name for name in names if names.count(name) > 1)

    for line in body.splitlines():
        with contextlib.suppress(ValueError):
            json.loads(line.removeprefix(b"data:"), object_pairs_hook=see)
    return bool(twice)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_mutated_answer_breaks_nothing(name: str) -> None:
    _, body = answer(name)
    for seed in range(MUTATIONS):
        chance = random.Random(f"{name} {seed}")
        changed = bytearray(body)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(changed) + 1)
            match chance.randrange(4):
                case 0:
                    changed[at : at + 1] = bytes([chance.randrange(256)])
                case 1:
                    del changed[at : at + chance.randint(1, 8)]
                case 2:
                    changed[at:at] = chance.choice(
                        (b'"', b"\\", b"{", b"}", b"[", b"]", b"\n\n", b"\0", b"\xff", b"1e999")
                    )
                case _:
                    changed[at:at] = changed[chance.randrange(len(changed) + 1) :][:64]
        whole = told(name, bytes(changed))
        assert whole is None or 0 <= whole <= 20 * NUMBER_MAX
        size = 1 + seed % 7
        is_packed = body.startswith(b"\x1f\x8b")  # what a broken stream gives up depends on the cuts
        if not is_packed and not has_members_twice(bytes(changed)):
            assert told(name, *pieces_of(bytes(changed), size)) == whole, (seed, size)
