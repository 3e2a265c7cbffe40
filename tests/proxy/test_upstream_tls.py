"""An upstream behind TLS: it must prove by its certificate that it is the one that was named."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from pathlib import Path

import orjson
import pytest

from meter import Meter
from tests.proxy.proxied import proxied
from tests.proxy.serving import fetch, request
from tests.proxy.upstream import Asked, FakeUpstream, Reply


def certificate(folder: Path, name: str) -> Path:
    """A certificate that vouches for itself, for one name; its key is beside it."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")
    subject = ("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")
    made = ("openssl", "req", "-x509", *key, "-out", f"{name}.pem", "-days", "2", *subject)
    subprocess.run(made, cwd=folder, check=True, capture_output=True)
    return folder / f"{name}.pem"


@pytest.mark.parametrize(("name", "is_trusted"), [("localhost", True), ("localhost", False), ("other.example", True)])
async def test_an_upstream_proves_who_it_is(
    bank: Meter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, is_trusted: bool
) -> None:
    async def script(asked: Asked, reply: Reply) -> None:
        await reply.json(orjson.dumps({"at": asked.target, "body": asked.body.decode()}))

    pem = certificate(tmp_path, name)
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem, pem.with_suffix(".key"))
    fake = FakeUpstream(script)
    server = await asyncio.start_server(fake.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/base"
    async with server, proxied(script, bank, upstream=url) as proxy:
        for _ in range(2):
            answer = await fetch(proxy.port, request("POST", "/x", body=b"{}"))
            if name == "localhost" and is_trusted:
                assert (answer.status, orjson.loads(answer.body)) == (200, {"at": "/base/x", "body": "{}"})
                assert fake.asked[-1].all("host") == [url.removeprefix("https://").removesuffix("/base")]
            else:
                assert (answer.status, orjson.loads(answer.body)["code"]) == (502, "UPSTREAM_UNREACHABLE")
        assert len(fake.asked) == (2 if name == "localhost" and is_trusted else 0)
        assert fake.open_connections == (1 if name == "localhost" and is_trusted else 0)
