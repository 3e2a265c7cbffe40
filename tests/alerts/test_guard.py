"""Webhooks reach public addresses only, checked where the connection is made."""

from __future__ import annotations

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from meter.alerts import webhook
from meter.alerts.guard import ForbiddenAddress, GuardedResolver, SystemResolver, guarded_socket
from meter.alerts.notification import NotDelivered, Notification
from meter.alerts.signing import new_secret
from meter.alerts.webhook import WebhookSender
from tests.alerts.receiver import Receiver

NOTE = Notification("msg_1", "test", "u", b"{}")


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "fe80::1%eth0", "::ffff:8.8.8.8", "fec0::1", "nonsense"])
def test_no_socket_is_made_for_what_is_not_public(address: str) -> None:
    with pytest.raises(ForbiddenAddress):
        guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)), allow_private=False)


@pytest.mark.parametrize("address", ["169.254.169.254", "fec0::1", "168.63.129.16", "::ffff:127.0.0.1", "224.0.0.1"])
def test_a_trusted_network_has_no_socket_for_what_no_receiver_has(address: str) -> None:
    """P13, X16: at the connection, too."""
    with pytest.raises(ForbiddenAddress):
        guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)), allow_private=True)
    guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 443)), allow_private=True).close()


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
    assert await GuardedResolver(Answering("8.8.8.8"), allow_private=False).resolve("example.com", 443)
    with pytest.raises(ForbiddenAddress, match=r"example\.com leads to 10\.0\.0\.1, which is private"):
        await GuardedResolver(Answering("8.8.8.8", "10.0.0.1"), allow_private=False).resolve("example.com", 443)
    assert await GuardedResolver(Answering("8.8.8.8", "10.0.0.1"), allow_private=True).resolve("example.com", 443)


async def test_the_names_of_the_system_are_found(hook: Receiver) -> None:
    resolver = SystemResolver()
    found = await resolver.resolve("localhost", 443, socket.AF_UNSPEC)
    assert {one["host"] for one in found} <= {"127.0.0.1", "::1"} and found
    await resolver.close()


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
    monkeypatch.setattr(webhook, "url_faults", lambda *_, **__: [])
    sender = WebhookSender(allow_private=False, resolver=Answering("127.0.0.1"))
    port = hook.url.split(":")[2].split("/")[0]
    try:
        for host in ("public.example", "127.0.0.1"):
            with pytest.raises(NotDelivered, match="loopback"):
                await sender.post(f"http://{host}:{port}/", [new_secret()], NOTE)
    finally:
        await sender.close()
    assert hook.received == []


async def test_a_name_of_a_trusted_network_does_not_lead_to_a_clouds_metadata() -> None:
    sender = WebhookSender(allow_private=True, resolver=Answering("169.254.169.254"))
    with pytest.raises(NotDelivered, match=r"169\.254\.169\.254, which is link-local"):
        await sender.post("http://receiver/", [new_secret()], NOTE)
    await sender.close()


async def test_a_secret_that_cannot_be_read_is_said_to_be() -> None:
    sender = WebhookSender(allow_private=True)
    for secret in ("whsec_", "whsec_a"):
        with pytest.raises(NotDelivered, match="rotate it"):
            await sender.post("http://127.0.0.1:9/", [secret], NOTE)
    await sender.close()


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
