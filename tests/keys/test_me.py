"""What users ask about themselves: H40 as far as budgets go, `/me/*`."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from urllib.parse import urlencode

from meter.client.calls import Carrier
from meter.client.credits import Credits
from meter.contract.answers import Balance, Refusal, TransactionPage
from meter.contract.calls import BY_NAME
from meter.contract.keys import KeyPage
from meter.contract.reports import FiguresPage, UsagePage
from tests.api.sidecar import Answer, problem_members
from tests.keys.conftest import Counter
from tests.keys.test_auth import Guarded, guarded

__all__ = ["guarded"]


def mine(counter: Counter, text: str, path: str) -> Answer:
    return counter.call("GET", f"/me/{path}", headers={"authorization": f"Bearer {text}"})


def test_one_sees_oneself_and_nobody_else(counter: Counter) -> None:
    text, others = counter.issue("u")["key"], counter.issue("acme/alice")["key"]
    counter.add("acme/alice", 2)
    assert counter.reserve(text, 1).status == 201
    assert counter.call("POST", "/credits/deduct", {"api_key": text, "amount": "0.5"}).status == 200

    assert mine(counter, text, "balance").body["available"] == Decimal("3.5")
    assert mine(counter, others, "balance").body["user_id"] == "acme/alice"
    kinds = [row["kind"] for row in mine(counter, text, "history").body["items"]]
    assert kinds == ["deduct", "reserve", "key", "grant"]
    [charged] = mine(counter, text, "history?kind=deduct").body["items"]
    assert charged["user_id"] == "u"
    if counter.folder is None:  # else nobody flushes
        assert [row["spent"] for row in mine(counter, text, "usage?by=user").body["items"]] == [Decimal("0.5")]
    assert [row["user_id"] for row in mine(counter, others, "keys").body["items"]] == ["acme/alice"]
    for path in ("usage?user_id=acme/alice", "keys?user_id=acme/alice", "usage?path=acme"):
        problem_members(mine(counter, text, path), 422, "validation-error")


def test_p6_a_balance_of_a_past_time_is_not_todays(counter: Counter) -> None:
    text = counter.issue("u")["key"]
    assert mine(counter, text, "balance").body["available"] > 0
    if counter.folder is None:  # there is a store that has no past of this user
        past = mine(counter, text, "balance?at=2020-01-01T00:00:00Z")
        assert (past.status, past.body["available"]) == (200, 0)
    problem_members(mine(counter, text, "balance?when=now"), 422, "validation-error")


def test_it_needs_a_key_that_may_read(counter: Counter) -> None:
    blind = counter.issue("u", scopes=["spend"])["key"]
    operators = counter.issue(None, scopes=["admin:read"])["key"]

    for path in ("balance", "history", "usage", "keys"):
        assert problem_members(mine(counter, blind, path), 403, "key-not-allowed") == {"scope": "read:self"}
        counter.invalid(mine(counter, blind[:-1], path))
        counter.invalid(mine(counter, operators, path))
        nobody = counter.call("GET", f"/me/{path}", headers={"x-user-id": "u"})
        problem_members(nobody, 401, "missing-identity")
        assert nobody.headers["www-authenticate"] == 'Bearer realm="meter"'


def test_one_sees_the_figures_of_ones_own_path_and_below_and_of_nobody_else(counter: Counter) -> None:
    mothers, childs = counter.issue("acme")["key"], counter.issue("acme/alice")["key"]
    for user, amount in (("acme", 1), ("acme/alice", 2), ("acme/bob", 4), ("u", 1)):
        counter.add(user, 10)
        counter.post("/deduct", {"user_id": user, "amount": amount})
    if counter.folder is not None:
        return  # nobody flushes
    of_all = mine(counter, mothers, "usage?group_by=path").body["items"]
    assert {row["path"]: row["spent"] for row in of_all} == {"acme": 1, "acme/alice": 2, "acme/bob": 4}
    assert [row["spent"] for row in mine(counter, childs, "usage?group_by=day&time_zone=UTC").body["items"]] == [2]
    assert [row["spent"] for row in mine(counter, childs, "usage?time_zone=Europe/Berlin").body["items"]] == [2]
    for query in ("group_by=path&by=day", "group_by=nothing", "group_by=path&path=u", "group_by=path&user_id=u"):
        problem_members(mine(counter, childs, f"usage?{query}"), 422, "validation-error")


async def test_the_python_client_asks_about_itself(guarded: Guarded) -> None:
    """Every call below /me, by the key of the client; without one they are refused."""
    text = guarded.issue("u")["key"]
    transport = Transport(guarded)
    client = Credits(transport.by(text))

    balance, history, keys = await client.my_balance(), await client.my_history(kind="key"), await client.my_keys()
    usage, figures = await client.my_usage("user"), await client.my_figures("path", "day")

    assert isinstance(balance, Balance) and (balance.user_id, balance.available) == ("u", Decimal(5))
    assert isinstance(keys, KeyPage) and isinstance(history, TransactionPage)
    assert [row.key_id for row in keys.items] == [row.key_id for row in history.items]
    assert isinstance(usage, UsagePage) and usage.items[0].granted == 5
    assert isinstance(figures, FiguresPage) and figures.items == []
    refused = await Credits(transport.by("")).my_balance()
    assert isinstance(refused, Refusal) and refused.code == "MISSING_IDENTITY"


class Transport:
    """Carries the calls of a client to a sidecar in this process."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded

    def by(self, text: str) -> Carrier:
        async def carry(
            name: str,
            path: Mapping[str, str],
            query: Mapping[str, str],
            body: bytes | None,
            key: str | None,
            actor: str = "",
        ) -> tuple[int, bytes, bool]:
            call = BY_NAME[name]
            answer = self._guarded.by(text, call.method, f"{call.prefix}{call.path}?{urlencode(query)}")
            return answer.status, answer.raw, answer.replayed

        return carry


def test_a_list_tells_the_hour_in_which_a_key_was_last_charged_by(counter: Counter) -> None:
    """Its own charges alone: neither those of another key of the path, nor those of a path below."""
    made = {name: counter.issue(path, name=name) for name, path in (("a", "acme"), ("b", "acme"), ("c", "acme/x"))}
    counter.issue(None, scopes=["admin:read"], name="operator")
    for path in ("acme", "acme/x"):
        counter.add(path, 10)

    def last_used(path: str = "/keys") -> dict[str, object]:
        return {one["name"]: one["last_used"] for one in counter.get(path)["items"]}

    assert set(last_used().values()) == {None}
    if counter.folder is not None:
        return  # nobody flushes
    spent = {"api_key": made["a"]["key"], "amount": 1}
    counter.post("/deduct", spent)
    counter.advance(3_600 + 1_800)
    counter.post("/deduct", {**spent, "api_key": made["c"]["key"]})
    counter.settle()
    hours = {"a": "2030-01-01T12:00:00.000Z", "b": None, "c": "2030-01-01T13:00:00.000Z", "operator": None}
    assert last_used() == hours
    assert last_used("/keys?user_id=acme") == {"a": hours["a"], "b": None}
    [listed] = mine(counter, made["c"]["key"], "keys").body["items"]
    assert listed["last_used"] == hours["c"]
    counter.advance(3_600)
    counter.post("/deduct", spent)
    counter.settle()
    assert last_used()["a"] == "2030-01-01T14:00:00.000Z"
