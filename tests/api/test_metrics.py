"""Metrics: what is counted, under which words, and that nothing else gets in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from fakeredis import FakeRedis, FakeServer
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from meter.api.metrics import Metrics
from meter.engine import operations
from meter.engine.counts import Counts, Distribution
from meter.engine.engine import Engine
from meter.engine.programs import Program
from meter.engine.redis import RedisGateway
from meter.engine.rights import Who
from meter.errors import MeterError, Overloaded
from meter.health.presence import JobRuns, Worker
from meter.testing import fake_app, fake_redis, fake_settings

Samples = dict[str, float]


def samples(text: str) -> Samples:
    """Sample by its name and labels, as in the text: `meter_batches_total{outcome="done"}`."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def scraped(client: TestClient) -> Samples:
    """What /metrics says now."""
    response = client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return samples(response.text)


def scraped_from(engine: Engine) -> Samples:
    """What /metrics of an engine would say now."""
    return samples(Metrics(engine.counts, lambda: engine.waiting).render("")[0].decode())


def operation_counts(found: Samples) -> Samples:
    """The counts of operations, as {"deduct ok": 1}."""
    prefix = "meter_operations_total{"
    return {
        " ".join(part.split('"')[1] for part in name.removeprefix(prefix).split(",")): value
        for name, value in found.items()
        if name.startswith(prefix)
    }


def batches(found: Samples) -> Samples:
    """The counts of script calls by outcome."""
    prefix = "meter_batches_total{"
    return {name.split('"')[1]: value for name, value in found.items() if name.startswith(prefix)}


def test_nothing_is_counted_before_the_first_operation() -> None:
    with TestClient(fake_app()) as client:
        found = scraped(client)
    assert operation_counts(found) == {}
    assert batches(found) == {}
    assert found["meter_batch_operations_count"] == found["meter_redis_seconds_count"] == 0
    assert found["meter_queue_operations"] == 0
    build = [name for name in found if name.startswith("meter_build_info{")]
    assert len(build) == 1
    assert 'version="' in build[0]


def test_operations_are_counted_by_the_word_of_their_answer() -> None:
    with TestClient(fake_app()) as client:

        def post(path: str, key: str = "", **body: object) -> None:
            headers = {"idempotency-key": key} if key else {}
            client.post(f"/credits/{path}", json=body, headers=headers)

        post("add", user_id="user-1", amount=100)
        post("deduct", user_id="user-1", amount=30)
        post("deduct", "k", user_id="user-1", amount=30)
        post("deduct", "k", user_id="user-1", amount=30)
        post("deduct", "k", user_id="user-1", amount=31)
        post("deduct", user_id="user-1", amount=1000)
        post("reserve")  # no such call
        post("deduct", user_id="user-1", amount=-1)  # never reaches the engine
        post("reservations", user_id="user-1", amount=10, reservation_id="job-1")
        post("reservations/job-1/commit", amount=4)
        post("reservations/job-1/commit", amount=4)
        post("reservations/job-1/commit", amount=5)
        post("reservations/job-2/release")
        client.get("/credits/balance/user-1")
        found = scraped(client)
    assert operation_counts(found) == {
        "grant ok": 1,
        "deduct ok": 2,
        "deduct replayed": 1,
        "deduct key_reused": 1,
        "deduct insufficient": 1,
        "reserve ok": 1,
        "commit ok": 1,
        "commit replayed": 1,
        "commit finished": 1,
        "release not_found": 1,
        "balance ok": 1,
    }
    assert batches(found) == {"done": 12}
    assert found["meter_batch_operations_count"] == found["meter_redis_seconds_count"] == 12
    assert found["meter_batch_operations_sum"] == 12
    assert 0 < found["meter_redis_seconds_sum"] < 60


def test_answers_are_counted_by_status_whatever_gave_them() -> None:
    with TestClient(fake_app()) as client:
        client.post("/credits/add", json={"user_id": "user-1", "amount": 1})
        client.post("/credits/reservations", json={"user_id": "user-1", "amount": 1})
        client.post("/credits/deduct", json={"user_id": "user-1", "amount": 1})
        client.post("/credits/deduct", content=b"{", headers={"content-type": "application/json"})
        client.get("/nowhere")
        client.post("/docs")
        found = scraped(client)
    assert {name: value for name, value in found.items() if name.startswith("meter_http_responses_total")} == {
        'meter_http_responses_total{status="200"}': 1,
        'meter_http_responses_total{status="201"}': 1,
        'meter_http_responses_total{status="400"}': 1,
        'meter_http_responses_total{status="402"}': 1,
        'meter_http_responses_total{status="404"}': 1,
        'meter_http_responses_total{status="405"}': 1,
    }


def test_what_an_atomic_batch_did_not_do_is_undone() -> None:
    body = {
        "operations": [
            {"op": "deduct", "user_id": "user-1", "amount": 1},
            {"op": "reserve", "user_id": "user-1", "amount": 2},
            {"op": "deduct", "user_id": "user-1", "amount": 1000},
        ],
        "atomic": True,
    }
    with TestClient(fake_app()) as client:
        client.post("/credits/add", json={"user_id": "user-1", "amount": 100})
        client.post("/credits/batch", json=body)
        found = scraped(client)
        client.post("/credits/batch", json={**body, "atomic": False})
        then = scraped(client)
    undone = {"grant ok": 1, "deduct undone": 1, "reserve undone": 1, "deduct insufficient": 1}
    assert operation_counts(found) == undone
    assert batches(found) == {"done": 1, "undone": 1}
    assert operation_counts(then) == undone | {"deduct ok": 1, "reserve ok": 1, "deduct insufficient": 2}
    assert found["meter_batch_operations_sum"] == 4
    assert [found[f'meter_batch_operations_bucket{{le="{bound}"}}'] for bound in ("1.0", "2.0", "5.0", "+Inf")] == [
        1,
        1,
        2,
        2,
    ]


def test_no_label_and_no_text_names_a_user() -> None:
    with TestClient(fake_app()) as client:
        client.post("/credits/add", json={"user_id": "alice@example.com", "amount": 1, "grant_id": "gift-4711"})
        client.post("/credits/deduct", json={"user_id": "alice@example.com", "amount": 5})
        client.get("/credits/balance/alice@example.com")
        text = client.get("/metrics").text
    assert "alice" not in text
    assert "4711" not in text


def test_each_application_counts_for_itself_and_nothing_is_global() -> None:
    before = generate_latest(REGISTRY)
    with TestClient(fake_app()) as one, TestClient(fake_app()) as other:
        one.get("/credits/balance/user-1")
        assert operation_counts(scraped(one)) == {"balance ok": 1}
        assert operation_counts(scraped(other)) == {}
    assert b"meter_" not in before + generate_latest(REGISTRY)


def test_open_metrics_is_given_to_who_accepts_it() -> None:
    with TestClient(fake_app()) as client:
        client.get("/credits/balance/user-1")
        response = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = {
        family.name: family.type
        for family in open_metrics_families(response.text)  # type: ignore[no-untyped-call]
    }
    assert families["meter_operations"] == "counter"
    assert families["meter_redis_seconds"] == "histogram"
    assert families["meter_queue_operations"] == "gauge"


def test_every_text_is_documented() -> None:
    with TestClient(fake_app()) as client:
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    assert all(family.documentation.endswith(".") for family in families)


async def test_operations_without_redis_are_unavailable_and_are_no_redis_time() -> None:
    server = FakeServer()
    engine = Engine(fake_redis(server), fake_settings(redis_timeout_ms=20))
    async with engine:
        server.connected = False
        with pytest.raises(MeterError):
            await engine.run("user-1", operations.deduct("user-1", 1))
    found = scraped_from(engine)
    assert operation_counts(found) == {"deduct unavailable": 1}
    assert batches(found) == {"failed": 1}
    assert found["meter_redis_seconds_count"] == found["meter_batch_operations_count"] == 0


async def test_operations_beyond_the_queue_are_overloaded_and_the_gauge_shows_the_queue() -> None:
    engine = Engine(fake_redis(), fake_settings(queue_max=2))
    async with engine:
        first = [asyncio.ensure_future(engine.run("user-1", operations.balance("user-1"))) for _ in range(2)]
        await asyncio.sleep(0)
        assert scraped_from(engine)["meter_queue_operations"] == engine.waiting == 2
        with pytest.raises(Overloaded):
            await engine.run("user-1", operations.deduct("user-1", 1))
        await asyncio.gather(*first)
        assert scraped_from(engine)["meter_queue_operations"] == 0
    with pytest.raises(Overloaded):
        await engine.run("user-1", operations.deduct("user-1", 1))
    found = scraped_from(engine)
    assert operation_counts(found) == {"balance ok": 2, "deduct overloaded": 2}
    assert batches(found) == {"done": 1}
    assert found["meter_batch_operations_sum"] == 2


class FaultyGateway(RedisGateway):
    """A Redis whose program answers nonsense once the partitions are open."""

    def __init__(self, inner: RedisGateway, answer: str | Exception) -> None:
        super().__init__(inner._client)
        self._inner = inner
        self._answer = answer

    async def info(self) -> dict[str, str] | None:
        return await self._inner.info()

    async def refusals(self, who: Sequence[Who], key: str, keys: Sequence[str]) -> list[str]:
        return await self._inner.refusals(who, key, keys)

    async def run(self, program: Program, keys: Sequence[str], arguments: Sequence[str | int]) -> str:
        if program.name == "open":
            return await self._inner.run(program, keys, arguments)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("done", "error"), (ValueError("a bug"), "error"), ("refused missing", "unavailable")],
)
async def test_what_a_broken_program_answers_is_told_apart(answer: str | Exception, outcome: str) -> None:
    async with Engine(FaultyGateway(fake_redis(), answer), fake_settings()) as engine:
        with pytest.raises(MeterError):
            await engine.run("user-1", operations.deduct("user-1", 1))
    found = scraped_from(engine)
    assert operation_counts(found) == {f"deduct {outcome}": 1}
    assert batches(found) == {"failed": 1}


async def test_partitions_are_summed() -> None:
    async with Engine(fake_redis(), fake_settings(partitions=4)) as engine:
        users = [f"user-{n}" for n in range(32)]
        await asyncio.gather(*(engine.run(user, operations.balance(user)) for user in users))
        assert len({engine.partition_of(user) for user in users}) == 4
    found = scraped_from(engine)
    assert operation_counts(found) == {"balance ok": 32}
    assert batches(found) == {"done": 4}
    assert found["meter_batch_operations_sum"] == 32
    assert found['meter_batch_operations_bucket{le="+Inf"}'] == found["meter_batch_operations_count"] == 4


def test_buckets_are_cumulative_and_include_their_bound() -> None:
    distribution = Distribution((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        distribution.add(value)
    assert distribution.counts == [2, 2, 1]
    assert distribution.total == 7.5


@pytest.mark.parametrize(
    ("head", "line", "outcome"),
    [
        ("done", "0 ok user-1 0 0 0", "ok"),
        ("stored", "0 ok user-1 0 0 0", "ok"),
        ("done", "1 ok user-1 0 0 0", "replayed"),
        ("undone", "1 ok user-1 0 0 0", "replayed"),
        ("undone", "0 ok user-1 0 0 0", "undone"),
        ("undone", "0 insufficient user-1 5 0 0 0", "insufficient"),
        ("done", "0 not_found", "not_found"),
        ("done", "0 okay", "okay"),
        ("done", "nonsense", ""),
    ],
)
def test_outcome_of_a_line(head: str, line: str, outcome: str) -> None:
    counts = Counts()
    counts.answered(head, [operations.balance("user-1")], [line])
    assert list(counts.outcomes()) == [(("balance", outcome), 1)]
    assert counts.batches == {head: 1}


def test_lines_are_matched_to_the_operations_of_all_calls_in_order() -> None:
    one, two, three = operations.balance("a"), operations.deduct("a", 1), operations.deduct("b", 1)
    counts = Counts()
    counts.answered("done", [one, two, three], ["0 ok a", "0 suspended 0 0 0", "0 ok b"])
    assert dict(counts.outcomes()) == {("balance", "ok"): 1, ("deduct", "ok"): 1, ("deduct", "suspended"): 1}
    assert counts.batch_operations.total == 3


async def test_a_scrape_while_operations_run_loses_none() -> None:
    async with Engine(fake_redis(), fake_settings()) as engine:
        waiting = [asyncio.ensure_future(engine.run("user-1", operations.balance("user-1"))) for _ in range(200)]
        counts = []
        while not all(one.done() for one in waiting):
            counts.append(operation_counts(scraped_from(engine)).get("balance ok", 0))
            await asyncio.sleep(0)
    assert counts == sorted(counts)
    assert operation_counts(scraped_from(engine)) == {"balance ok": 200}


def test_u4_the_parts_the_backlog_and_the_workers_are_told(tmp_path: Path) -> None:
    """U4: outbox length and age, last flush, worker last seen, deliveries by outcome, job runs and failures."""
    server = FakeServer()
    told = Worker(
        worker_id="w1",
        version="1",
        started_at_ms=1,
        seen_at_ms=time.time_ns() // 1_000_000 + 600_000,  # however slow this machine is
        flushed_at_ms={0: 1_800_000_000_000},
        flush_failures={0: 2},
        jobs={"sweep": JobRuns(done=5, failed=1, seconds=0.5, ended_at_ms=1_800_000_000_000, error="x")},
        deliveries={"delivered": 3, "retried": 1},
        set_aside={"subscription": 2},
    )
    with TestClient(fake_app(server, store_url=f"sqlite:///{tmp_path}/m.db")) as client:
        client.post("/credits/add", json={"user_id": "u", "amount": 1})
        before = scraped(client)
        FakeRedis(server=server).hset("meter:workers", "w1", told.model_dump_json())
        found = scraped(client)
        readyz = client.get("/readyz")
    assert (before['meter_part_up{part="worker"}'], before["meter_workers"]) == (0, 0)
    assert "meter_worker_seen_timestamp_seconds" not in before
    wanted = {
        'meter_part_up{part="backlog"}': 1,
        'meter_part_up{part="partitions"}': 1,
        'meter_part_up{part="redis"}': 1,
        'meter_part_up{part="store"}': 1,
        'meter_part_up{part="worker"}': 1,
        'meter_outbox_transactions{partition="0"}': 1,
        "meter_workers": 1,
        "meter_worker_seen_timestamp_seconds": told.seen_at_ms / 1000,
        'meter_flush_timestamp_seconds{partition="0"}': 1_800_000_000,
        'meter_flush_failures_total{partition="0",worker="w1"}': 2,
        'meter_deliveries_total{outcome="delivered",worker="w1"}': 3,
        'meter_deliveries_total{outcome="retried",worker="w1"}': 1,
        'meter_set_aside_total{what="subscription",worker="w1"}': 2,
        'meter_job_runs_total{job="sweep",outcome="done",worker="w1"}': 5,
        'meter_job_runs_total{job="sweep",outcome="failed",worker="w1"}': 1,
        'meter_job_seconds_total{job="sweep",worker="w1"}': 0.5,
        'meter_job_ended_timestamp_seconds{job="sweep",worker="w1"}': 1_800_000_000,
    }
    assert {name: found[name] for name in wanted} == wanted
    assert found["meter_outbox_oldest_seconds"] >= 0
    assert (readyz.status_code, readyz.json()["status"]) == (200, "ok")
    assert readyz.json()["parts"]["backlog"]["transactions"] == 1


def test_u4_readyz_is_degraded_without_a_worker_and_refused_without_a_partition(tmp_path: Path) -> None:
    server = FakeServer()
    with TestClient(fake_app(server, store_url=f"sqlite:///{tmp_path}/m.db")) as client:
        degraded = client.get("/readyz")
        FakeRedis(server=server).delete("meter:{p0}:meta")
        refused = client.get("/readyz")
        metrics = scraped(client)
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    parts = degraded.json()["parts"]
    assert list(parts) == ["redis", "partitions", "backlog", "store", "worker"]
    assert {name: part["status"] for name, part in parts.items()} == {
        **dict.fromkeys(parts, "ok"),
        "worker": "missing",
    }
    assert parts["worker"]["stops"] == ["the ledger", "periods of plans", "alerts and webhooks"]
    assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
    assert refused.json()["faults"][0].startswith("partition 0 is not served: ")
    assert refused.json()["parts"]["partitions"]["status"] == "refused"
    assert metrics['meter_part_up{part="partitions"}'] == 0


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
async def test_what_several_processes_counted_is_told_by_one_of_them(accept: str) -> None:
    async with Engine(fake_redis(), fake_settings()) as one, Engine(fake_redis(), fake_settings()) as two:
        for engine, number in ((one, 1), (two, 3)):
            for _ in range(number):
                await engine.run("user-1", operations.balance("user-1"))
        first, second = (Metrics(engine.counts, lambda: 0) for engine in (one, two))

        found = samples(first.render(accept, {0: first.told(), 7: second.told()})[0].decode().replace("# EOF\n", ""))

    assert found['meter_operations_total{op="balance",outcome="ok",process="0"}'] == 1
    assert found['meter_operations_total{op="balance",outcome="ok",process="7"}'] == 3
    assert found['meter_batch_operations_bucket{le="+Inf",process="7"}'] == 3
    assert {name for name in found if name.startswith("process_cpu")} == {
        'process_cpu_seconds_total{process="0"}',
        'process_cpu_seconds_total{process="7"}',
    }
    assert ["process" in name for name in found if name.startswith("meter_build_info")] == [False]
