"""X8, C6, X19: what Redis' users must be allowed is declared once, asked for at each start, and documented."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from meter.config import Settings
from meter.engine import rights
from meter.engine.connect import connect
from meter.engine.engine import Engine
from meter.engine.operations import deduct, grant
from meter.engine.programs import lua_folder
from meter.engine.redis import RedisGateway
from meter.engine.rights import (
    COMMANDS,
    LED_COMMANDS,
    NODE_COMMANDS,
    PROCESS_COMMANDS,
    QUEUE_COMMANDS,
    SCRIPT_COMMANDS,
    WAITING_COMMANDS,
    Who,
)
from meter.errors import ConfigError, PartitionRefused, RedisDenied, ScriptError
from meter.health.presence import Presences, Worker
from meter.in_process import Meter
from meter.worker.queue import check_queue
from tests.e2e.processes import environment, free_port, run_meter
from tests.partition import Partition
from tests.servers import embedded_server

ROOT = Path(__file__).resolve().parents[2]
SIDECAR = (Who.SCRIPT, Who.PROCESS)
WORKER = (*SIDECAR, Who.QUEUE)


@pytest.fixture(scope="module")
def admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A real server of its own: users are the server's."""
    with embedded_server(tmp_path_factory.mktemp("acl")) as server, Redis.from_url(server.url) as client:
        yield client


@pytest.fixture(autouse=True)
def _emptied(request: pytest.FixtureRequest) -> None:
    if "admin" in request.fixturenames:
        request.getfixturevalue("admin").flushall()


def acl_rules(who: Sequence[Who], key_prefix: str, streams: Sequence[str] = ()) -> str:
    """The rules of a user who may do all that is declared, and nothing else."""
    names = sorted({name.lower() for one in who for name in COMMANDS[one]} | {"select"})
    patterns = [f"~{key_prefix}:*", *(f"~{stream}" for stream in streams)]
    return " ".join([*patterns, "-@all", *(f"+{name}" for name in names)])


def user(admin: Redis, rules: str) -> str:
    """The URL for a user with exactly these rights."""
    run: Any = admin.execute_command
    run("ACL", "SETUSER", "m", "reset", "on", ">pw", *rules.split())
    return f"redis://m:pw@127.0.0.1:{admin.get_connection_kwargs()['port']}/0"


def settings_of(url: str, **more: object) -> Settings:
    return Settings(redis_url=url, store_url="none", redis_timeout_ms=10_000, **more)  # type: ignore[arg-type]


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Engine]:
    """An engine, as a process starts it."""
    gateway = connect(settings.redis_url, timeout_seconds=5, connections_max=4)
    engine = Engine(gateway, settings)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()
        await gateway.close()


def test_x8_every_call_of_a_script_is_declared() -> None:
    text = "\n".join(path.read_text() for path in sorted(lua_folder().rglob("*.lua")))
    named = set(re.findall(r"redis\.p?call\(\s*'([A-Z]+)'", text)) | set(re.findall(r"write_paged\('([A-Z]+)'", text))
    assert named == set(SCRIPT_COMMANDS)
    assert text.count("redis.call(") - len(re.findall(r"redis\.call\('", text)) == 1  # write_paged's own


def test_x8_every_command_of_a_process_is_declared() -> None:
    text = "".join((ROOT / f"meter/engine/{name}.py").read_text() for name in ("redis", "cluster", "connections"))
    named = set(re.findall(r"(?:command\(|\.call\(|\bask\(|_packed\()\s*\"([A-Z]+)\"", text)) | {"INFO"}
    assert named - {"WATCH"} == {*PROCESS_COMMANDS, *NODE_COMMANDS, *LED_COMMANDS, *WAITING_COMMANDS}
    others = {path for path in (ROOT / "meter").rglob("*.py") if "execute_command" in path.read_text()}
    mine = ("engine/redis.py", "engine/sentinel.py", "dev/redis_server.py")  # Sentinels have users of their own
    assert others <= {ROOT / "meter" / path for path in mine}


async def test_x19_everything_that_arq_sends_is_declared(admin: Redis) -> None:
    """A worker with a job that runs, one that fails, one that comes again, and one that nobody knows."""
    from arq import Retry  # noqa: PLC0415
    from arq.worker import Worker as ArqWorker  # noqa: PLC0415
    from arq.worker import func  # noqa: PLC0415

    from meter.worker.queue import queue_pool, to_json  # noqa: PLC0415

    async def again(ctx: dict[str, int]) -> None:
        if ctx["job_try"] == 1:
            raise Retry(defer=0.001)

    async def fails(_: object) -> None:
        raise ValueError

    url = user(admin, acl_rules((Who.QUEUE,), "meter"))
    pool = queue_pool(settings_of(url))
    admin.config_resetstat()
    for name in ("again", "fails", "unknown"):
        await pool.enqueue_job(name, _job_id=name)
        await pool.enqueue_job(name, _job_id=name)
    worker = ArqWorker(
        [func(again, name="again"), func(fails, name="fails")],  # type: ignore[arg-type]
        redis_pool=pool,
        burst=True,
        handle_signals=False,
        poll_delay=0.05,
        job_serializer=to_json,
        job_deserializer=orjson.loads,
        health_check_interval=0,
    )
    await worker.async_run()
    await worker.close()
    stats: Any = admin.info("commandstats")
    sent = {name.removeprefix("cmdstat_").upper() for name in stats}
    assert {"MULTI", "EXEC", "PSETEX", "ZINCRBY", "SETEX", "DEL"} - sent <= {"SETEX"}
    assert {name for name in sent if "|" not in name} - {"AUTH", "HELLO", "INFO"} <= set(QUEUE_COMMANDS)
    left: Any = admin.keys()
    assert {key.split(b":")[0] for key in left} == {b"meter"}


@pytest.mark.parametrize("title", ["sidecar", "worker", "queue"])
def test_x8_the_documented_acl_is_the_declared_one(title: str) -> None:
    who = {"sidecar": SIDECAR, "worker": WORKER, "queue": (Who.QUEUE,)}[title]
    assert (
        f"ACL SETUSER meter-{title} on >CHANGE-ME {acl_rules(who, 'meter')}\n" in (ROOT / "docs/redis.md").read_text()
    )


async def test_x8_with_exactly_the_documented_acl_everything_works(admin: Redis, tmp_path: Path) -> None:
    url = user(admin, acl_rules(WORKER, "meter"))
    settings = settings_of(url).model_copy(update={"store_url": f"sqlite:///{tmp_path}/m.db"})
    async with Meter(settings) as meter:
        await meter.add("u", 100)
        async with meter.reserve("u", 10) as hold:
            await hold.commit(5)
        assert await meter.deduct("u", 1)
    gateway = connect(url, timeout_seconds=5, connections_max=2)
    await Presences(gateway, "meter").tell(Worker(worker_id="w", version="1", started_at_ms=1, seen_at_ms=1))
    await gateway.close()
    await check_queue(settings)
    env = environment(redis_url=url, store_url=settings.store_url, redis_timeout_ms=10_000)
    for command in (("jobs", "all"), ("reconcile",), ("rebuild",)):
        run = await asyncio.to_thread(run_meter, *command, cwd=tmp_path, env=env)
        assert run.returncode in ((0, 1) if command == ("reconcile",) else (0,)), (command, run.stderr)


async def test_x8_each_single_command_that_is_taken_away_is_named(admin: Redis) -> None:
    for name in sorted({*SCRIPT_COMMANDS, *PROCESS_COMMANDS}):
        url = user(admin, f"{acl_rules(SIDECAR, 'meter')} -{name.lower()}")
        with pytest.raises(ConfigError, match=rf"\b{name}\b|'{name.lower()}'") as raised:
            async with started(settings_of(url)):
                pass
        assert str(raised.value).startswith("METER_REDIS_URL: ") and "docs/redis.md" in str(raised.value)
        assert len(str(raised.value).splitlines()) == 1
        assert not admin.keys(), name


async def test_x19_each_single_command_that_arq_lacks_is_named(admin: Redis) -> None:
    for name in QUEUE_COMMANDS:
        url = user(admin, f"{acl_rules((Who.QUEUE,), 'meter')} -{name.lower()}")
        with pytest.raises(ConfigError, match=rf"^METER_REDIS_URL: .*\b{name}\b"):
            await check_queue(settings_of(url))
        with pytest.raises(ConfigError, match=rf"^METER_QUEUE_URL: .*\b{name}\b"):
            await check_queue(settings_of("redis://unused", queue_url=url))
    assert not admin.keys()


@pytest.mark.parametrize(
    ("pattern", "missing"),
    [
        ("~other:*", "meter:"),
        ("~meter:{p0}:* ~meter:{p1}:*", "meter:workers"),
        ("~meter:workers ~meter:selftest ~meter:{p0}:*", "meter:{p1}:meta"),
        ("%R~meter:* %W~meter:{p0}:* %W~meter:selftest", "meter:{p1}:meta"),
        ("~meter:*", "alerts"),
    ],
)
async def test_c6_a_pattern_that_is_missing_is_named(admin: Redis, pattern: str, missing: str) -> None:
    url = user(admin, acl_rules(SIDECAR, "meter").replace("~meter:*", pattern))
    with pytest.raises(ConfigError, match=rf"the keys .*{re.escape(missing)}.*~meter:\*"):
        async with started(settings_of(url, partitions=2, notify="stream:alerts")):
            pass
    assert not admin.keys()


async def test_c6_arqs_keys_need_their_pattern(admin: Redis) -> None:
    url = user(admin, acl_rules((Who.QUEUE,), "meter").replace("~meter:*", "~meter:selftest ~meter:{p0}:*"))
    with pytest.raises(ConfigError, match=r"the keys meter:arq:queue.*~meter:\*"):
        await check_queue(settings_of(url))


async def test_x8_support_may_look_and_change_nothing(admin: Redis) -> None:
    async with started(settings_of(f"redis://127.0.0.1:{admin.get_connection_kwargs()['port']}/0")) as engine:
        await engine.run("u", grant("u", "g", 5))
    (line,) = re.findall(r"ACL SETUSER meter-support on >CHANGE-ME (.+)", (ROOT / "docs/redis.md").read_text())
    with Redis.from_url(user(admin, line)) as support:
        assert support.hget("meter:{p0}:accounts", "u")
        assert support.xrange("meter:{p0}:outbox")
        for call in (("HSET", "meter:{p0}:accounts", "u", "9"), ("DEL", "meter:{p0}:meta"), ("HGET", "other", "f")):
            with pytest.raises(NoPermissionError):
                support.execute_command(*call)
        with pytest.raises(NoPermissionError):
            support.eval("return 1", 0)


async def test_x8_a_right_that_goes_while_it_runs_closes_what_is_half_written(admin: Redis) -> None:
    """XADD is the last but for meta: the balance has changed by then, and the ledger has not."""
    url = user(admin, acl_rules(SIDECAR, "meter"))
    async with started(settings_of(url)) as engine:
        await engine.run("u", grant("u", "g", 100))
        user(admin, f"{acl_rules(SIDECAR, 'meter')} -xadd")
        with pytest.raises((ScriptError, RedisDenied), match="refuses its user"):
            await engine.run("u", deduct("u", 30))
        user(admin, acl_rules(SIDECAR, "meter"))
        async with asyncio.timeout(10):
            while Partition(admin).client.hget("meter:{p0}:meta", "state") != b"lost":
                await asyncio.sleep(0.02)
        with pytest.raises(PartitionRefused, match=r"lost.*meter rebuild"):
            await engine.run("u", deduct("u", 1))


async def test_x8_nothing_is_run_where_multi_is_not_known(gateway: RedisGateway, server: object) -> None:
    """A server, or what stands before it, that takes no MULTI would run what is asked."""

    class Plain:
        def __init__(self) -> None:
            self.sent: list[str] = []

        async def connect(self) -> None: ...

        async def send_command(self, *call: str) -> None:
            self.sent.append(call[0])

        async def read_response(self) -> bytes:
            return b"whatever"

        async def disconnect(self, *, nowait: bool) -> None: ...

    plain = Plain()
    gateway._client.connection_pool.make_connection = lambda: plain
    await gateway.refusals(SIDECAR, "k", ["k"])
    assert plain.sent == ["MULTI"]


@pytest.mark.slow
def test_x8_the_commands_end_with_one_line_and_2(admin: Redis, tmp_path: Path) -> None:
    url = user(admin, f"{acl_rules(WORKER, 'meter')} -xadd -dbsize")
    for command in ("serve", "worker"):
        env = environment(redis_url=url, store_url="none", port=free_port(), redis_timeout_ms=10_000)
        run = run_meter(command, cwd=tmp_path, env=env)
        assert run.returncode == 2, run.stderr
        assert "Traceback" not in run.stderr and "XADD" in run.stderr
    url = user(admin, f"{acl_rules(WORKER, 'meter')} -dbsize")
    run = run_meter("worker", cwd=tmp_path, env=environment(redis_url=url, store_url="none", redis_timeout_ms=10_000))
    assert run.returncode == 2, run.stderr
    assert len([line for line in run.stderr.splitlines() if "DBSIZE" in line]) == 1


def test_x8_the_rules_name_no_command_twice() -> None:
    rules = acl_rules(WORKER, "p", ["alerts"]).split()
    assert rules[:3] == ["~p:*", "~alerts", "-@all"]
    assert len(rules) == len(set(rules))
    assert set(rights.UNQUEUED) <= {name for commands in COMMANDS.values() for name in commands}
