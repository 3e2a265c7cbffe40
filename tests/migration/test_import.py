"""U21: what credit-management kept comes in, exactly, once, and what cannot is told.

`dump/` was made by credit-management 0.7.1 itself, by its own calls on its MongoDB backend, and exported as mongoexport
does; only the times at which things end were moved to 2099. The ledger is left out.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from bson import json_util
from fakeredis import FakeServer
from pymongo import AsyncMongoClient
from redis import Redis

from meter.amount import AmountScale
from meter.cli.importing import import_credit_management
from meter.clock import milliseconds
from meter.config import Settings
from meter.contract import answers
from meter.contract.plans import PlanPage
from meter.errors import ConfigError
from meter.in_process import Meter
from meter.migration.bring_in import BringIn, Report
from meter.migration.documents import COLLECTIONS, EXPIRIES, RESERVED, SUBSCRIPTIONS, TRANSACTIONS, open_source
from meter.migration.plan import Plan, Planner
from meter.runtime import Runtime
from meter.store.base import Store
from meter.store.connect import open_store
from meter.testing import fake_redis, fake_settings
from meter.testing.in_step import MeterInStep
from tests.e2e.processes import environment
from tests.partition import entries_of
from tests.store.servers import Missing, Mongo

DUMP = Path(__file__).parent / "dump"
SCALE = AmountScale(6)
NOW_MS = 1_800_000_000_000
BALANCES = {
    "alice": ("60", "0", "0"),
    "bob@example.com": ("0.3", "0", "0"),
    "carol": ("470", "0", "0"),
    "dave/team": ("64.75", "30.25", "0"),
    "erin": ("0", "0", "2.75"),
    "grace": ("12.5", "0", "0"),
}
"""Available, reserved and debt; credit-management answers 0.30000000000000004 for bob."""


class Place:
    """Where it comes in: a deployment on fakeredis, and a meter beside it."""

    def __init__(self) -> None:
        server = FakeServer()
        self.settings = fake_settings()
        self.store: Store = open_store("memory://")
        self.runtime = Runtime(self.settings, fake_redis(server), self.store)
        self.meter: Meter = MeterInStep(self.settings, lambda: fake_redis(server), self.store)

    async def bring_in(self, plan: Plan, stop_after: int | None = None) -> Report:
        def progress(done: int) -> None:
            if done == stop_after:
                raise KeyError("killed")

        return await BringIn(self.runtime.engine, self.store, self.settings).run(plan, progress)

    async def balances(self) -> dict[str, tuple[str, str, str]]:
        found = {}
        for user_id in BALANCES:
            one = await self.meter.balance(user_id)
            assert isinstance(one, answers.Balance)
            found[user_id] = tuple(SCALE.text(SCALE.units(n)) for n in (one.available, one.reserved, one.debt))
        return found  # type: ignore[return-value]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    made = Place()
    async with made.runtime, made.meter:
        yield made


async def planned(source: str | Path, now_ms: int = NOW_MS, scale: AmountScale = SCALE) -> Plan:
    planner, opened = Planner(scale, now_ms), open_source(str(source), "credit_management")
    for collection in COLLECTIONS:
        async for document in opened.documents(collection):
            planner.take(document)
    return planner.planned()


def written(folder: Path, **collections: Sequence[object]) -> Path:
    """A dump of these documents, each a line; a text is written as it is."""
    folder.mkdir(exist_ok=True)
    for name, documents in collections.items():
        lines = [one if isinstance(one, str) else json.dumps(one) for one in documents]
        (folder / f"{name}.json").write_text("\n".join(lines))
    return folder


def change(
    number: int, user_id: str = "u", added: object = 0, taken: object = 0, after: object = 0
) -> dict[str, object]:
    return {
        "_id": f"t{number}",
        "user_id": user_id,
        "credits_added": added,
        "credits_deducted": taken,
        "current_credits": after,
        "timestamp": f"2026-01-01T00:00:{number:02d}",
    }


def ending(number: int, amount: object, ends: str, user_id: str = "u", **members: object) -> dict[str, object]:
    return {
        "_id": f"e{number}",
        "user_id": user_id,
        "credits": amount,
        "remaining_credits": amount,
        "created_at": f"2026-01-01T00:00:{number:02d}.010",
        "expires_at": ends,
        **members,
    }


async def test_balances_plans_subscriptions_and_holds_come_in_exactly(place: Place) -> None:
    report = await place.bring_in(await planned(DUMP))

    assert await place.balances() == BALANCES
    assert [fault.user_id for fault in report.faults] == ["frank müller"]
    grants = await place.meter.grants("carol")
    assert isinstance(grants, answers.GrantPage)
    assert [(one.amount, one.source, one.expires_at is None) for one in grants.items] == [
        (Decimal(420), "import", False),  # of its 500 the 80 that were spent
        (Decimal(50), "import", True),
    ]
    plans = await place.meter.plans()
    assert isinstance(plans, PlanPage)
    assert {(one.name, str(one.price), one.billing_period) for one in plans.items} == {
        ("Pro", "9.99", "monthly"),
        ("Day", "0.1", "daily"),
    }
    [hold] = (await place.meter.reservations("dave/team")).items  # type: ignore[union-attr]
    assert await place.meter.commit(hold.reservation_id, 30)
    history = await place.meter.history("alice", reference="import:credit-management")
    assert isinstance(history, answers.TransactionPage)
    assert [row.kind for row in history.items] == ["grant"]


async def test_a_second_run_changes_nothing_whatever_happened_since(place: Place) -> None:
    await place.bring_in(await planned(DUMP))
    await place.meter.deduct("alice", 60)
    await place.meter.add("erin", 10)
    [hold] = (await place.meter.reservations("dave/team")).items  # type: ignore[union-attr]
    await place.meter.release(hold.reservation_id)
    before = await place.balances()
    report = await place.bring_in(await planned(DUMP))

    assert await place.balances() == before
    for counted in (report.plans, report.grants, report.debts, report.reservations, report.subscriptions):
        assert set(counted) == {"unchanged"}


async def test_a_run_that_was_killed_goes_on(place: Place) -> None:
    plan = await planned(DUMP)
    for stop_after in (1, 3, 5):
        with pytest.raises(ExceptionGroup):  # in a task of its own: 3.11 leaves the group's half cancelled
            await asyncio.create_task(place.bring_in(plan, stop_after))
    await place.bring_in(plan)

    assert await place.balances() == BALANCES
    everything = [(await place.meter.history(user_id)).items for user_id in BALANCES]  # type: ignore[union-attr]
    assert sum(row.kind == "grant" for rows in everything for row in rows) == 6


async def test_a_subscription_goes_on_where_its_period_ends_and_gives_nothing_before(
    place: Place, tmp_path: Path
) -> None:
    for file in DUMP.iterdir():
        shutil.copy(file, tmp_path)
    now_ms = await place.runtime.engine.now_ms()
    text = (tmp_path / f"{SUBSCRIPTIONS}.json").read_text().replace("2099-12-30", "2026-12-30")
    (tmp_path / f"{SUBSCRIPTIONS}.json").write_text(text)
    await place.bring_in(await planned(tmp_path, now_ms))
    assert (await place.balances())["carol"][0] == "470"
    [before] = (await place.meter.subscriptions("carol")).items  # type: ignore[union-attr]
    assert before.next_period_at is not None
    await place.meter.advance((milliseconds(before.next_period_at) - now_ms) / 1000 + 60)

    assert (await place.balances())["carol"][0] == "970"
    [after] = (await place.meter.subscriptions("carol")).items  # type: ignore[union-attr]
    assert after.period == before.period + 1
    assert after.next_period_at > before.next_period_at


async def test_mongodb_gives_the_same_plan_as_its_dump(tmp_path: Path) -> None:
    try:
        server = Mongo(tmp_path, None)
    except Missing as why:
        pytest.skip(str(why))
    server.start()
    try:
        async with AsyncMongoClient[dict[str, Any]](server.url("credit_management")) as client:
            for file in DUMP.iterdir():
                rows = [json_util.loads(line) for line in file.read_text().splitlines()]
                await client["credit_management"][file.stem].insert_many(rows)
        found = await planned(server.url("").rstrip("/"))
    finally:
        server.stop()
    as_dumped = await planned(DUMP)
    assert found.accounts.keys() == as_dumped.accounts.keys()
    for user_id, account in found.accounts.items():
        assert account.grants == as_dumped.accounts[user_id].grants
        assert account.debt == as_dumped.accounts[user_id].debt
    assert [row for _, row in found.subscriptions] == [row for _, row in as_dumped.subscriptions]
    assert [row for _, row in found.plans] == [row for _, row in as_dumped.plans]


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (change(1, added="1e-400", after=1), "plain decimal"),
        (change(1, added=True, after=1), "number"),
        ('{"_id": "t1", "user_id": "u", "timestamp": "2026-01-01", "current_credits": 1e-400}', "within reason"),
        ('{"_id": "t1", "user_id": "u", "timestamp": "2026-01-01", "current_credits": NaN}', "reason"),
        (change(1, added=0.1234567, after=0.1234567), "more than 6 decimal places"),
        (change(1, added=10**16, after=10**16), "must lie within"),
        ({**change(1), "timestamp": "yesterday"}, "is no time"),
        ({**change(1), "current_credits": None}, "current_credits"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("7", "is no JSON object"),
        (change(1, user_id="", after=1), "user_id"),
    ],
)
async def test_a_bad_row_is_told_with_its_line_and_nothing_is_rounded(
    tmp_path: Path, document: object, why: str
) -> None:
    good = change(2, user_id="good", added=5, after=5)
    plan = await planned(written(tmp_path, **{TRANSACTIONS: [good, document]}))

    assert why in plan.faults[0].reason
    assert str(plan.faults[0].where) in (f"{TRANSACTIONS}.json:2", f"{TRANSACTIONS} of u")
    assert list(plan.accounts) == ["good"]


async def test_a_user_with_a_transaction_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    rows: list[object] = [change(1, added=5, after=5), change(2, added="?", after=9), change(3, added=1, after=10)]
    plan = await planned(written(tmp_path, **{TRANSACTIONS: rows}))

    assert not plan.accounts
    assert [fault.user_id for fault in plan.faults] == ["u", "u"]


async def test_what_credit_management_answers_is_what_comes_in(tmp_path: Path) -> None:
    """Also where its lost updates make the transactions add up to something else, which is told."""
    rows: list[object] = [change(1, added=100, after=100), change(2, taken=1, after=99), change(3, taken=1, after=99)]
    plan = await planned(written(tmp_path, **{TRANSACTIONS: rows}))

    assert [grant.amount for grant in plan.accounts["u"].grants] == [99_000_000]
    assert "answers 99, and that comes in; the transactions add up to 98" in plan.notes[0]


async def test_what_was_spent_is_taken_from_what_ends_first(tmp_path: Path) -> None:
    """B5: plan 100, bought 50, spent 80: 20 of the plan are left, and 50 that never end."""
    rows: list[object] = [
        change(1, added=100, after=100),
        change(2, added=50, after=150),
        change(3, taken=80, after=70),
    ]
    ends: list[object] = [ending(1, 100, "2099-01-01")]
    grants = (await planned(written(tmp_path, **{TRANSACTIONS: rows, EXPIRIES: ends}))).accounts["u"].grants

    assert [(one.grant_id, one.amount) for one in grants] == [("import_e1", 20_000_000), ("import_balance", 50_000_000)]


async def test_what_has_ended_stays_behind_and_is_told(tmp_path: Path) -> None:
    rows: list[object] = [change(1, added=100, after=100), change(2, added=50, after=150)]
    ends: list[object] = [ending(1, 100, "2026-02-01")]
    plan = await planned(written(tmp_path, **{TRANSACTIONS: rows, EXPIRIES: ends}))

    assert [one.amount for one in plan.accounts["u"].grants] == [50_000_000]
    assert plan.expired == 100_000_000


async def test_what_credit_management_had_expired_is_not_taken_twice(tmp_path: Path) -> None:
    rows: list[object] = [
        change(1, added=100, after=100),
        change(2, added=50, after=150),
        change(3, taken=80, after=70),
        change(4, taken=100, after=0),  # "100 expired"
    ]
    ends: list[object] = [ending(1, 100, "2026-01-02"), ending(1, 100, "2026-01-02", expired=True)]
    plan = await planned(written(tmp_path, **{TRANSACTIONS: rows, EXPIRIES: ends}))

    assert plan.accounts["u"].grants == []
    assert plan.expired == 0


async def test_a_hold_that_was_settled_ended_or_too_large_is_none(place: Place, tmp_path: Path) -> None:
    def hold(number: int, **members: object) -> dict[str, object]:
        return {"_id": f"h{number}", "user_id": "u", "credits": 10, **members}

    holds = [
        hold(1),
        hold(2, committed=True),
        hold(3, released=True),
        hold(4, expires_at="2026-01-01"),
        hold(5, credits=1000),
    ]
    source = written(tmp_path, **{TRANSACTIONS: [change(1, added=50, after=50)], RESERVED: holds})
    report = await place.bring_in(await planned(source))

    assert report.reservations == {"imported": 1, "refused": 1}
    assert "insufficient" in report.faults[0].reason
    assert report.faults[0].where.endswith("credit_reserved.json:5")


async def test_the_command_reports_as_json_and_by_its_exit_code(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = f"sqlite:///{tmp_path / 'meter.db'}"
    settings = Settings(redis_url=redis_url, store_url=store, key_prefix="u21", redis_timeout_ms=10_000)

    async def run(source: Path, *, dry_run: bool = False) -> tuple[int, dict[str, Any]]:
        code = await import_credit_management(settings, str(source), "", "cli:ada", dry_run=dry_run, as_json=True)
        return code, json.loads(capsys.readouterr().out, parse_float=Decimal)

    code, told = await run(DUMP, dry_run=True)
    assert (code, told["grants"], told["credits"]) == (1, {"planned": 6}, Decimal("637.8"))
    assert not (tmp_path / "meter.db").exists()
    code, told = await run(DUMP)
    assert (code, told["grants"], told["reserved"], told["debt"]) == (
        1,
        {"imported": 6},
        *map(Decimal, ("30.25", "2.75")),
    )
    with Redis.from_url(redis_url) as client:
        brought = [entry for entry in entries_of(client.xrange("u21:{p0}:outbox")) if "credit-management" in str(entry)]
    assert len(brought) >= 8 and all(entry.text("actor") == "cli:ada" for entry in brought), "U9: who brought it in"
    clean = written(tmp_path / "clean", **{TRANSACTIONS: [change(1, user_id="zoe", added=1, after=1)]})
    assert (await run(clean))[0] == 0
    assert (await run(clean))[1]["grants"] == {"unchanged": 1}


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("", "name a source"),
        ("nowhere", "no such file"),
        ("postgresql://x/y", "is no source"),
        (".", "no credit_subscription_plans"),
        ("mongodb://a:b:c@/", "no URL of MongoDB"),
    ],
)
async def test_a_source_that_is_none_is_one_line(
    source: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=why):
        await import_credit_management(Settings(), source, "x", "", dry_run=True, as_json=True)


def test_a_mongodb_that_is_away_is_one_line(tmp_path: Path) -> None:
    url = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=300"
    command = [sys.executable, "-m", "meter", "import", "credit-management", url, "--dry-run"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert ran.returncode == 3
    assert ran.stderr.startswith("meter: the source: ")
    assert ran.stderr.count("\n") == 1


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CREDIT_MONGO_URI", raising=False)
    yield
