"""C12 and X9 on MariaDB: TLS that one of both refuses is told at once, by what would mend it, and not as "away"."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from meter.errors import ConfigError, StoreDenied, StoreUnavailable
from meter.store.connect import open_store
from meter.store.sql.store import _translated
from tests.e2e.processes import environment, free_port, run_meter
from tests.pems import make_pems
from tests.store.servers import Missing, Mysql

_USERS = ("CREATE USER u@'%' IDENTIFIED BY 'pw'", "CREATE USER x@'%' IDENTIFIED BY 'pw' REQUIRE X509")


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_pems`."""
    return make_pems(tmp_path_factory.mktemp("pems"))


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory, pems: Path) -> Iterator[dict[str, int]]:
    """Servers whose certificate is for the right and for the wrong name, and one without."""
    found = {}
    with ExitStack() as stack:
        for name in ("right", "wrong", "none"):
            found[name] = free_port()
            tls = [f"--ssl-ca={pems}/ca.pem", f"--ssl-cert={pems}/{name}.pem", f"--ssl-key={pems}/{name}.key"]
            listening = [
                f"--port={found[name]}",
                "--bind-address=127.0.0.1",
                *(tls if name != "none" else ["--skip-ssl"]),
            ]
            try:
                server = Mysql(tmp_path_factory.mktemp(name), None, listening)
            except Missing as missing:
                pytest.skip(f"mysql: {missing}")
            server.start()
            stack.callback(server.stop)
            asyncio.run(_prepared(server))
        yield found


async def _prepared(server: Mysql) -> None:
    await server.create("m")
    for statement in (*_USERS, *(f"GRANT ALL ON *.* TO {user}@'%'" for user in "ux")):
        await server.run(statement)


@pytest.mark.mysql
@pytest.mark.parametrize(
    ("server", "user", "options", "words"),
    [
        ("right", "u", "ssl_ca={pems}/other-ca.pem", "nobody known has signed its certificate"),
        ("wrong", "u", "ssl_ca={pems}/ca.pem", "its certificate is for another name"),
        ("right", "u", "ssl_check_hostname=true", "nobody known has signed its certificate"),
        ("right", "u", "ssl_check_hostname=false", "nobody known has signed its certificate"),
        ("right", "x", "ssl_cert={pems}/ours.pem&ssl_key={pems}/ours.key", "nobody known has signed its certificate"),
        ("right", "u", "ssl_capath={pems}", "nobody known has signed its certificate"),
        ("wrong", "u", "ssl_ca={pems}/ca.pem&ssl_check_hostname=1", "its certificate is for another name"),
        ("none", "u", "ssl_check_hostname=true", "it speaks no TLS there"),
        ("right", "x", "ssl_ca={pems}/ca.pem", "with a certificate"),
        ("right", "x", "", "must come by TLS"),
        ("none", "u", "ssl_ca={pems}/ca.pem", "it speaks no TLS there"),
        ("none", "u", "ssl=yes", "the driver does not take an option"),
    ],
)
async def test_c12_tls_that_is_refused_is_told_apart_from_away(
    ports: dict[str, int], pems: Path, server: str, user: str, options: str, words: str
) -> None:
    store = open_store(f"mysql://{user}:pw@localhost:{ports[server]}/m?{options.format(pems=pems)}", timeout_seconds=20)
    with pytest.raises(StoreDenied, match=f"^METER_STORE_URL: .*{words}") as raised:
        await store.open({})
    await store.close()
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.mysql
async def test_x9_a_certificate_of_ours_is_shown(ports: dict[str, int], pems: Path) -> None:
    ours = f"ssl_ca={pems}/ca.pem&ssl_cert={pems}/ours.pem&ssl_key={pems}/ours.key"
    store = open_store(f"mysql://x:pw@localhost:{ports['right']}/m?{ours}", timeout_seconds=20)
    await store.open({})
    await store.ping()
    await store.close()


@pytest.mark.mysql
@pytest.mark.parametrize("server", ["right", "wrong"])
async def test_x9_only_the_name_is_left_out_where_that_is_said(ports: dict[str, int], pems: Path, server: str) -> None:
    options = f"ssl_ca={pems}/ca.pem&ssl_check_hostname=false"
    store = open_store(f"mysql://u:pw@127.0.0.1:{ports[server]}/m?{options}", timeout_seconds=20)
    await store.open({})
    await store.ping()
    await store.close()


@pytest.mark.mysql
async def test_x9_without_a_file_of_ours_the_certificates_of_the_system_count(
    ports: dict[str, int], pems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pems / "ca.pem"))
    store = open_store(f"mysql://u:pw@localhost:{ports['right']}/m?ssl_check_hostname=true", timeout_seconds=20)
    await store.open({})
    await store.close()


@pytest.mark.mysql
def test_c12_such_a_start_ends_with_2_and_one_line(ports: dict[str, int], pems: Path, tmp_path: Path) -> None:
    url = f"mysql://u:pw@localhost:{ports['wrong']}/m?ssl_ca={pems}/ca.pem"
    variables = environment(store_url=url, redis_url="redis://127.0.0.1:1/0", port=free_port())
    for command in ("serve", "worker", "reconcile"):
        done = run_meter(command, cwd=tmp_path, env=variables)
        assert done.returncode == 2, done.stderr
        assert "for another name" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("ssl_ca={folder}/none.pem", r"ssl_ca=.*No such file"),
        ("ssl_cert={folder}/text", r"ssl_cert=.*no PEM file"),
        ("ssl_key={folder}/text", r"ssl_key=.*ssl_cert is missing"),
        ("ssl_check_hostname=maybe", r"ssl_check_hostname=maybe: must be true or false"),
        ("ssl_check_hostname=", r"its option ssl_check_hostname has no value"),
        ("ssl_ca=&charset=utf8", r"its option ssl_ca has no value"),
        ("ssl_cipher=none", r"ssl_cipher=none: nothing that can be used"),
    ],
)
def test_x9_a_file_that_cannot_be_used_is_told_before_anything_is_asked(
    tmp_path: Path, option: str, words: str
) -> None:
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(ConfigError, match=f"^METER_STORE_URL: {words}"):
        open_store(f"mysql://u:pw@127.0.0.1:1/m?{option.format(folder=tmp_path)}")


@pytest.mark.parametrize(
    ("words", "denied"),
    [
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired", True),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", True),
        ("[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol", False),
        ("[Errno 111] Connect call failed", False),
    ],
)
def test_c12_a_handshake_that_a_restart_cut_off_is_waited_for(words: str, denied: bool) -> None:
    with pytest.raises(StoreUnavailable) as raised, _translated():
        raise OperationalError("connect", None, Exception(2003, f"Can't connect to MySQL server on 'h' ({words})"))
    assert isinstance(raised.value, StoreDenied) == denied
