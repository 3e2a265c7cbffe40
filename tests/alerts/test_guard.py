"""Webhooks reach public addresses only, checked where the connection is made."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from meter.alerts import webhook
from meter.alerts.guard import ForbiddenAddress, PublicResolver, connector, is_public, public_socket
from meter.alerts.notification import NotDelivered, Notification
from meter.alerts.signing import new_secret
from meter.alerts.webhook import WebhookSender, url_fault
from tests.alerts.receiver import Receiver

NOTE = Notification("msg_1", "test", "u", b"{}")

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "nonsense",
    "",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(ForbiddenAddress):
        public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


class Answering(AbstractResolver):
    """Resolves every name to given addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        pass


async def test_one_private_address_among_public_ones_is_enough() -> None:
    assert await PublicResolver(Answering("8.8.8.8")).resolve("example.com", 443)
    with pytest.raises(ForbiddenAddress):
        await PublicResolver(Answering("8.8.8.8", "10.0.0.1")).resolve("example.com", 443)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "127.1"]
)
async def test_no_spelling_of_this_machine_is_connected_to(host: str, hook: Receiver) -> None:
    sender = WebhookSender(allow_private=False)
    port = hook.url.split(":")[2].split("/")[0]
    try:
        with pytest.raises(NotDelivered):
            await sender.post(f"https://{host}:{port}/", [new_secret()], NOTE)
    finally:
        await sender.close()
    assert hook.received == []


async def test_a_name_that_turns_private_after_it_was_registered(
    monkeypatch: pytest.MonkeyPatch, hook: Receiver
) -> None:
    """DNS rebinding: plain http is let through here, so that only the address stands in the way."""
    monkeypatch.setattr(webhook, "url_fault", lambda *_, **__: None)
    monkeypatch.setattr(
        webhook, "connector", lambda **_: connector(allow_private=False, resolver=Answering("127.0.0.1"))
    )
    sender = WebhookSender(allow_private=False)
    port = hook.url.split(":")[2].split("/")[0]
    try:
        for host in ("public.example", "127.0.0.1"):
            with pytest.raises(NotDelivered, match=r"not (a )?public"):
                await sender.post(f"http://{host}:{port}/", [new_secret()], NOTE)
    finally:
        await sender.close()
    assert hook.received == []


async def test_a_large_answer_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch, hook: Receiver) -> None:
    monkeypatch.setattr(webhook, "ANSWER_MAX_BYTES", 4)
    sender = WebhookSender(allow_private=True)
    assert await sender.post(hook.url, [new_secret()], NOTE) == 200
    await sender.close()


async def test_a_receiver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.1)
    sender = WebhookSender(allow_private=True)
    with pytest.raises(NotDelivered, match="Timeout"):
        await sender.post(f"http://127.0.0.1:{silent.getsockname()[1]}/", [new_secret()], NOTE)
    await sender.close()
    silent.close()


def test_http_is_refused_unless_the_network_is_trusted() -> None:
    assert url_fault("http://example.com/", allow_private=False) == "must begin with https://"
    assert url_fault("http://example.com/", allow_private=True) is None
    assert url_fault("https://example.com:8443/x?y=1", allow_private=False) is None
