"""The refusals that the OpenAPI document declares are exactly those that a running sidecar gives."""

from __future__ import annotations

from collections.abc import Mapping

from fakeredis import FakeRedis, FakeServer
from starlette.testclient import TestClient

from meter.api_key import new_api_key
from meter.app import create_app
from meter.clock import NEVER_MS
from meter.contract.call import ME
from meter.contract.calls import BY_NAME, CALLS
from meter.contract.table.story import NOW
from meter.keys import PartitionKeys
from meter.store.catalog import Change
from meter.store.memory.store import MemoryStore, open_memory
from meter.store.plan_rows import ErrandRow, PlanRow, SubscriptionRow
from meter.store.rows import DeliveryRow, EventRow, WebhookRow
from meter.testing import fake_redis, fake_settings
from tests.openapi.story import (
    BODY_MAX,
    CALL_NAMES,
    EXAMPLES,
    NOW_MS,
    OTHER_BODIES,
    PAYMENTS,
    WITH_BODY,
    WITH_KEY,
    call,
    declared,
    path_of,
    refusal,
    sidecar,
    tell_the_story,
)

Seen = set[tuple[str, str]]


def test_exactly_the_declared_refusals_are_served() -> None:
    seen: Seen = set()
    for provoke in (
        bodies_that_are_not_read,
        parameters_that_are_not_valid,
        keys_that_are_not_taken,
        what_the_rules_refuse,
        what_plans_refuse,
        what_rates_refuse,
        what_keys_refuse,
        what_codes_refuse,
        what_guessers_are_told,
        what_limits_refuse,
        what_accounts_cannot_take,
        what_cannot_be_worked_out,
        what_changes_meanwhile,
        what_has_ended,
        what_keeps_a_name,
        what_spans_partitions,
        what_the_clock_refuses,
        what_is_not_decided,
    ):
        provoke(seen)
    assert seen == {(name, slug) for name in CALL_NAMES for slug in declared(name)}


def bodies_that_are_not_read(seen: Seen) -> None:
    with sidecar() as client:
        for name in WITH_BODY:
            for response in (
                call(client, name, content=b"{"),
                call(client, name, content=b" " * (BODY_MAX + 1)),
                call(client, name, content=b"{}", headers={"content-type": "text/plain"}),
                call(client, name, {"unknown": 1}),
            ):
                seen.add((name, refusal(name, response)))


def parameters_that_are_not_valid(seen: Seen) -> None:
    with sidecar(store_url="none") as client:
        for row in CALLS:
            seen.add((row.name, refusal(row.name, call(client, row.name, query={"unknown": "1"}))))
            if row.name == "reservations":
                query = {"user_id": "user-1", "state": "committed"}
                seen.add((row.name, refusal(row.name, call(client, row.name, query=query))))
            if "{user_id}" in row.path:
                seen.add((row.name, refusal(row.name, call(client, row.name, path={"user_id": "user 1"}))))


def keys_that_are_not_taken(seen: Seen) -> None:
    for name in WITH_KEY:
        with sidecar(store_url="memory://") as client:
            seen.add((name, refusal(name, call(client, name, headers={"idempotency-key": "a b"}))))
            seen.add((name, refusal(name, call(client, name, headers={"x-actor": "a b"}))))
            path = path_of(name, list(tell_the_story(client, until=name)))
            body = dict(EXAMPLES[name].body or {})
            if name == "refund":
                body["transaction_id"] = call(client, "deduct").json()["transaction_id"]
            if name == "batch":
                continue
            key = {"idempotency-key": "k"}
            assert call(client, name, body, headers=key, path=path).status_code == BY_NAME[name].status
            other = OTHER_BODIES.get(name, {"description": "other"})
            if name == "create_plan":
                body.pop("plan_id")
            another = {} if BY_NAME[name].body else {next(iter(EXAMPLES[name].path)): "another"}
            seen.add((name, refusal(name, call(client, name, {**body, **other}, headers=key, path=another))))


def what_the_rules_refuse(seen: Seen) -> None:
    with sidecar(grants_max=1, reservations_max=1) as client:

        def refused(name: str, body: object = None, **more: Mapping[str, str]) -> None:
            response = call(client, name, body, headers=more.get("headers"), path=more.get("path", {}))
            seen.add((name, refusal(name, response)))

        added = call(client, "add").json()
        refused("add", headers={"idempotency-key": "k"})
        refused("add", {"user_id": "user-1", "amount": 1})
        refused("adjust", {"user_id": "user-1", "amount": 1, "reason": "x"})
        again = {"user_id": "user-1", "amount": 1, "reason": "x", "grant_id": "welcome"}
        refused("adjust", again, headers={"idempotency-key": "k"})
        charge = call(client, "deduct").json()["transaction_id"]
        refused("deduct", {"user_id": "user-1", "amount": 1000})
        refused("reserve", {"user_id": "user-1", "amount": 1000})
        refused("reservation")
        refused("commit")
        refused("release")
        refused("extend")
        assert call(client, "reserve").status_code == 201
        refused("reserve", {"user_id": "user-1", "amount": 1})
        refused("commit", {"amount": 1000, "over": "reject"})
        refused("extend", {"add_amount": 1000})
        refused("refund", {"user_id": "user-1", "transaction_id": "0-99-0123456789-1"})
        refused("refund", {"user_id": "user-1", "transaction_id": charge, "amount": 1000})
        refused("refund", {"user_id": "user-1", "transaction_id": added["transaction_id"]})
        assert call(client, "configure", {"suspended": True}).status_code == 200
        refused("deduct")
        refused("reserve", {"user_id": "user-1", "amount": 1})
        refused("extend", {"add_amount": 1})
        assert call(client, "configure", path={"user_id": "nobody"}).status_code == 200
        refused("configure", path={"user_id": "stranger"})
        refused("set_top_up", path={"user_id": "stranger"})
        for name in ("switch_top_up", "remove_top_up"):
            refused(name, path={"user_id": "nobody"})
        refused("void", path={"grant_id": "nobody"})
        assert call(client, "void").status_code == 200
        refused("void")
        fewer = {"user_id": "user-1", "amount": -1, "reason": "x"}
        refused("adjust", {**fewer, "amount": -10_000})
        refused("adjust", {**fewer, "grant_id": "nobody"})
        refused("adjust", {**fewer, "grant_id": "welcome"})


def what_plans_refuse(seen: Seen) -> None:
    with sidecar(store_url="memory://", webhooks_max=1, plans_max=2) as client:

        def refused(name: str, slug: str, body: object = None, **path: str) -> None:
            assert refusal(name, call(client, name, body, path=path)) == slug
            seen.add((name, slug))

        for name in ("plan", "update_plan", "delete_plan", "subscribe", "upgrade"):
            refused(name, "plan-not-found")
        refused("transaction", "transaction-not-found")
        refused("unsubscribe", "subscription-not-found")
        assert call(client, "create_plan").status_code == 201
        refused("create_plan", "plan-exists", {**(EXAMPLES["create_plan"].body or {}), "name": "Another"})
        refused("upgrade", "subscription-not-found")
        assert call(client, "subscribe").status_code == 200
        basic = {**(EXAMPLES["create_plan"].body or {}), "plan_id": "basic", "active": False}
        assert call(client, "create_plan", basic).status_code == 201
        refused("create_plan", "too-many-plans", {**basic, "plan_id": "third"})
        refused("upgrade", "plan-inactive", {"plan_id": "basic"})
        refused("subscribe", "plan-inactive", {"plan_id": "basic"}, user_id="user-3")
        basic = {name: value for name, value in basic.items() if name != "plan_id"} | {"active": True}
        assert call(client, "update_plan", basic, path={"plan_id": "basic"}).status_code == 200
        refused("subscribe", "subscription-exists", {"plan_id": "basic"})
        refused("subscribe", "subscription-fixed", {"plan_id": "pro", "time_zone": "UTC"})
        for name in ("update_webhook", "delete_webhook", "rotate_webhook", "test_webhook"):
            refused(name, "webhook-not-found")
        refused("retry_notification", "notification-not-found")
        assert call(client, "create_webhook").status_code == 201
        refused("create_webhook", "webhook-exists")
        refused("create_webhook", "too-many-webhooks", {"url": "https://example.com/another"})


def what_rates_refuse(seen: Seen) -> None:
    with sidecar(store_url="memory://") as client:

        def refused(name: str, slug: str, body: object = None, **path: str) -> None:
            assert refusal(name, call(client, name, body, path=path)) == slug
            seen.add((name, slug))

        for name in ("activate_rate_card", "rate_card", "rate_card_versions"):
            refused(name, "rate-card-not-found")
        refused("rate_card", "validation-error", rate_card_id="a b")
        assert call(client, "put_rate_card").status_code == 200
        refused("activate_rate_card", "rate-card-version-not-found", {"version": 2})
        asked = {"user_id": "user-1", "usage": {"model": "other", "input": 1}}
        for name in ("deduct", "reserve", "quote"):
            refused(name, "unknown-model", asked)
        assert call(client, "add").status_code == 200
        held = {"user_id": "user-1", "reservation_id": "job-1", "usage": {"model": "gpt-4o", "input": 1}}
        assert call(client, "reserve", held).status_code == 201
        refused("commit", "unknown-model", {"usage": asked["usage"]})
        assert call(client, "reserve", {"user_id": "user-1", "amount": 1, "reservation_id": "job-2"}).status_code == 201
        refused("commit", "reservation-not-priced", {"usage": asked["usage"]}, reservation_id="job-2")


def what_guessers_are_told(seen: Seen) -> None:
    with sidecar(store_url="memory://", key_failures_max=1) as client:
        guess = {"authorization": f"Bearer {new_api_key('u', is_test=True)[0]}"}
        assert call(client, "my_balance", headers=guess).status_code == 401
        for name in (row.name for row in CALLS if row.prefix == ME):
            seen.add((name, refusal(name, call(client, name, headers=guess))))


def what_limits_refuse(seen: Seen) -> None:
    with sidecar(store_url="memory://") as client:

        def refused(name: str, slug: str, body: object) -> None:
            assert refusal(name, call(client, name, body)) == slug
            seen.add((name, slug))

        one = {"user_id": "user-1", "amount": 1}
        assert call(client, "add").status_code == 200
        budget = {"budgets": {"daily": {"limit": 1, "window": "day"}}}
        assert call(client, "configure", budget).status_code == 200
        assert call(client, "reserve", {**one, "reservation_id": "job-1"}).status_code == 201
        for name in ("deduct", "reserve"):
            refused(name, "budget-reached", one)
        refused("extend", "budget-reached", {"add_amount": 1})
        refused("commit", "budget-reached", {"amount": 2, "over": "reject"})
        limit = {"budgets": {"daily": None}, "rate_limits": {"rpm": {"kind": "requests", "limit": 1}}}
        assert call(client, "configure", limit).status_code == 200
        assert call(client, "deduct", one).status_code == 200
        for name in ("deduct", "reserve"):
            refused(name, "rate-limited", one)


def what_keys_refuse(seen: Seen) -> None:
    with sidecar(store_url="memory://", keys_max=1, reservations_max=2) as client:

        def refused(name: str, slug: str, body: object = None, **path: str) -> None:
            assert refusal(name, call(client, name, body, path=path)) == slug
            seen.add((name, slug))

        assert call(client, "put_rate_card").status_code == 200
        for name in ("change_key", "rotate_key", "revoke_key"):
            refused(name, "key-not-found")
            refused(name, "key-not-found", key_id="a b")
        made = call(client, "create_key", {"user_id": "user-1", "models": ["gpt-4o"]}).json()
        refused("create_key", "too-many-keys", {"user_id": "user-1"})
        assert call(client, "create_key").status_code == 201
        refused("create_key", "too-many-accounts", {"user_id": "user-3"})
        refused("change_key", "validation-error", {"scopes": ["admin:read"]}, key_id=made["key_id"])
        usage = {"model": "gpt-4o", "input": 1, "max_output": 1}
        assert call(client, "add").status_code == 200
        assert call(client, "add", {"user_id": "user-4", "amount": 1}).status_code == 200
        blind = call(client, "create_key", {"user_id": "user-4", "scopes": ["spend"]}).json()["key"]
        keyed = {"authorization": f"Bearer {made['key']}"}
        for row in (row for row in CALLS if row.prefix == ME):
            both = {**keyed, "x-api-key": blind}
            for slug, headers in (
                ("missing-identity", {}),
                ("invalid-id", both),
                ("invalid-key", {"x-api-key": made["key"] + "x"}),
                ("key-not-allowed", {"authorization": f"bearer {blind}"}),
            ):
                assert refusal(row.name, call(client, row.name, headers=headers)) == slug
                seen.add((row.name, slug))
            if row.query is not None:
                answer = call(client, row.name, headers=keyed, query={"unknown": "1"})
                seen.add((row.name, refusal(row.name, answer)))
        for name in ("deduct", "reserve", "quote"):
            refused(name, "invalid-key", {"api_key": made["key"][:-1], "usage": usage})
            refused(name, "key-not-allowed", {"api_key": made["key"], "usage": {**usage, "model": "other"}})
        held = {"api_key": made["key"], "usage": usage, "reservation_id": "job-1"}
        assert call(client, "reserve", held).status_code == 201
        refused("commit", "key-not-allowed", {"usage": {"model": "other", "input": 1}})
        assert call(client, "revoke_key", path={"key_id": made["key_id"]}).status_code == 200
        for name in ("change_key", "rotate_key"):
            refused(name, "key-over", key_id=made["key_id"])


def what_accounts_cannot_take(seen: Seen) -> None:
    with sidecar(store_url="memory://", grants_max=1) as client:
        for plan in ("pro", "team"):
            assert (
                call(client, "create_plan", {**(EXAMPLES["create_plan"].body or {}), "plan_id": plan}).status_code
                == 201
            )
        assert call(client, "subscribe").status_code == 200
        assert call(client, "add", {"user_id": "user-3", "amount": 1}).status_code == 200
        for name, user in (("subscribe", "user-3"), ("upgrade", "user-2")):
            response = call(client, name, {"plan_id": "team"}, path={"user_id": user})
            assert refusal(name, response) == "too-many-grants"
            seen.add((name, "too-many-grants"))


def what_cannot_be_worked_out(seen: Seen) -> None:
    server, store = FakeServer(), open_memory("memory://", timeout_seconds=1)
    assert isinstance(store, MemoryStore)
    with TestClient(create_app(fake_settings(), fake_redis(server), store)) as client:
        assert call(client, "create_plan").status_code == 201
        assert (
            call(client, "create_plan", {**(EXAMPLES["create_plan"].body or {}), "plan_id": "team"}).status_code == 201
        )
        assert call(client, "subscribe").status_code == 200
        ((key, row),) = store._tables.catalog[SubscriptionRow].items()
        store._tables.catalog[SubscriptionRow][key] = row.model_copy(update={"time_zone": "right/UTC"})
        FakeRedis(server=server).hset(PartitionKeys(0).meta, "clock_ms", str(NEVER_MS - 1))
        for name, body, query in (
            ("subscribe", {"plan_id": "pro"}, {}),
            ("upgrade", {"plan_id": "team"}, {}),
            ("unsubscribe", None, {"when": "period_end"}),
        ):
            assert refusal(name, call(client, name, body, query=query)) == "subscription-set-aside"
            seen.add((name, "subscription-set-aside"))


class Contended(MemoryStore):
    """A store in which another process always changes a row first."""

    async def swap(self, row: object) -> bool:
        return False

    async def commit(self, change: Change) -> bool:
        new = all(isinstance(row, PlanRow | WebhookRow | DeliveryRow | EventRow) for row in change.new)
        return new and not change.swaps and await super().commit(change)


class Alone(MemoryStore):
    """A store without transactions."""

    @property
    def has_transactions(self) -> bool:
        return False


def what_codes_refuse(seen: Seen) -> None:
    with sidecar(store_url="memory://", grants_max=1, code_failures_max=1) as client:

        def refused(name: str, slug: str, body: object = None, **path: str) -> None:
            assert refusal(name, call(client, name, body, path=path)) == slug
            seen.add((name, slug))

        def made(code: str, **more: object) -> str:
            body = {"code": code, "amount": 1, "max_total": 1, **more}
            answer = call(client, "create_code", body)
            assert answer.status_code == 201, answer.text
            return str(answer.json()["code_id"])

        code_id = made("first")
        refused("create_code", "code-exists", {"code": "FIRST", "amount": 1, "max_total": 1})
        refused("stop_code", "code-not-found")
        assert call(client, "redeem", {"user_id": "u", "code": "first"}).status_code == 200
        refused("redeem", "code-redeemed", {"user_id": "u", "code": "first"})
        refused("redeem", "code-used-up", {"user_id": "v", "code": "first"})
        assert call(client, "stop_code", path={"code_id": code_id}).status_code == 200
        refused("redeem", "code-ended", {"user_id": "v", "code": "first"})
        made("second")
        refused("redeem", "too-many-grants", {"user_id": "u", "code": "second"})
        refused("redeem", "code-not-found", {"user_id": "v", "code": "third"})
        refused("redeem", "rate-limited", {"user_id": "v", "code": "second"})
    found = open_memory("memory://", timeout_seconds=1)
    alone = Alone(found._tables)
    with TestClient(create_app(fake_settings(), fake_redis(FakeServer()), alone)) as client:
        seen.add(("redeem", refusal("redeem", call(client, "redeem"))))


def what_changes_meanwhile(seen: Seen) -> None:
    server, store = FakeServer(), open_memory("memory://contended", timeout_seconds=1)
    assert isinstance(store, MemoryStore)
    contended = Contended(store._tables)
    with TestClient(create_app(fake_settings(), fake_redis(server), contended)) as client:
        assert call(client, "create_plan").status_code == 201
        assert call(client, "create_webhook").status_code == 201
        FakeRedis(server=server).hset(PartitionKeys(0).meta, "clock_ms", NOW_MS)
        path = {"notification_id": call(client, "test_webhook").json()["notification_id"]}
        seen.add(("retry_notification", refusal("retry_notification", call(client, "retry_notification", path=path))))
        for name in (
            "subscribe",
            "update_plan",
            "delete_plan",
            "update_webhook",
            "rotate_webhook",
            "delete_webhook",
            "put_rate_card",
            "create_key",
            "create_code",
        ):
            seen.add((name, refusal(name, call(client, name))))
    with TestClient(create_app(fake_settings(), fake_redis(FakeServer()), store)) as client:
        assert call(client, "subscribe").status_code == 200
        assert (
            call(client, "create_plan", {**(EXAMPLES["create_plan"].body or {}), "plan_id": "team"}).status_code == 201
        )
        assert call(client, "delete_webhook").status_code == 200
        assert call(client, "put_rate_card").status_code == 200
        key = {"key_id": call(client, "create_key").json()["key_id"]}
        begun = {**(EXAMPLES["create_code"].body or {}), "starts_at": "2026-01-01T00:00:00Z"}
        code = {"code_id": call(client, "create_code", begun).json()["code_id"]}
    with TestClient(create_app(fake_settings(), fake_redis(server), contended)) as client:
        for name in ("change_key", "rotate_key", "revoke_key"):
            seen.add((name, refusal(name, call(client, name, path=key))))
        for name, path in (("redeem", {}), ("stop_code", code)):
            seen.add((name, refusal(name, call(client, name, path=path))))
        seen.add(("activate_rate_card", refusal("activate_rate_card", call(client, "activate_rate_card"))))
        seen.add(("upgrade", refusal("upgrade", call(client, "upgrade", {"plan_id": "team"}))))
        seen.add(("create_webhook", refusal("create_webhook", call(client, "create_webhook"))))
        seen.add(("unsubscribe", refusal("unsubscribe", call(client, "unsubscribe"))))


def what_has_ended(seen: Seen) -> None:
    with sidecar(late_commit_grace_seconds=0) as client:
        call(client, "add")
        for job, end in (("committed", "commit"), ("released", "release"), ("expired", "")):
            call(client, "reserve", {"user_id": "user-1", "amount": 5, "reservation_id": job, "ttl_seconds": 60})
            if end:
                assert call(client, end, {}, path={"reservation_id": job}).status_code == 200
        call(client, "set_clock", {"advance_seconds": 61})
        for job, name in (
            *((job, name) for job in ("committed", "released", "expired") for name in ("commit", "extend")),
            *((job, "release") for job in ("committed", "expired")),
        ):
            body = {"amount": 1} if name == "commit" else {}
            slug = refusal(name, call(client, name, body, path={"reservation_id": job}))
            assert slug == f"reservation-{job}"
            seen.add((name, slug))


def what_keeps_a_name(seen: Seen) -> None:
    store = open_memory("memory://", timeout_seconds=1)
    with TestClient(create_app(fake_settings(), fake_redis(FakeServer()), store)) as client:

        def refused(slug: str, headers: Mapping[str, str] | None = None) -> None:
            assert refusal("anonymise", call(client, "anonymise", headers=headers)) == slug
            seen.add(("anonymise", slug))

        refused("user-not-found")
        refused("invalid-actor", headers={"x-actor": "a b"})
        assert refusal("reset_budget", call(client, "reset_budget", path={"budget_id": "none"})) == "budget-not-found"
        seen.add(("reset_budget", "budget-not-found"))
        call(client, "add")
        refused("account-in-use")
        call(client, "void")
        errand = ErrandRow(errand_id="void.s_1.1", kind="void", user_id="user-1", created_at_ms=0)
        store._tables.catalog[ErrandRow] = {(errand.errand_id,): errand}
        refused("busy")


def what_spans_partitions(seen: Seen) -> None:
    with sidecar(partitions=2) as client:
        body = {
            "operations": [{"op": "deduct", "user_id": user, "amount": 0} for user in ("a", "b", "c", "d")],
            "atomic": True,
        }
        seen.add(("batch", refusal("batch", call(client, "batch", body))))


def what_the_clock_refuses(seen: Seen) -> None:
    with sidecar() as client:
        seen.add(("set_clock", refusal("set_clock", call(client, "set_clock", {"now": NOW}))))
    with sidecar(test_clock=False) as client:
        for name in ("clock", "set_clock"):
            seen.add((name, refusal(name, call(client, name))))


def what_is_not_decided(seen: Seen) -> None:
    server = FakeServer()
    server.connected = False
    settings = fake_settings(partitions=2, redis_timeout_ms=20, body_max_bytes=BODY_MAX, store_url="none", **PAYMENTS)
    with TestClient(create_app(settings, fake_redis(server))) as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        for name in CALL_NAMES:
            if name == "events" or BY_NAME[name].is_always_answered:
                continue  # told without Redis
            body = {"operations": [{"op": "release", "reservation_id": "job-1"}]} if name == "batch" else None
            text, _ = new_api_key("user-1", is_test=True)
            headers = {"x-api-key": text} if BY_NAME[name].prefix == ME else {}
            response = call(client, name, body, headers=headers)
            seen.add((name, refusal(name, response)))
            assert int(response.headers["retry-after"]) > 0
    with sidecar(store_url="none") as client:
        seen.add(("events", refusal("events", call(client, "events"))))
