"""X16, P13, U20: which URLs an endpoint may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from meter.alerts.addresses import address_fault
from meter.alerts.endpoint_url import ALLOW_PRIVATE, same_url, url_faults

FINE = [
    "https://example.com",
    "https://example.com/",
    "https://example.com:8443/x?y=1",
    "https://example.com?x",
    "https://hooks.example.co.uk/a/b/c;d=e/%C3%BC?q=[1]&z='x'(!)*",
    "https://xn--r8jz45g.jp/",
    "https://under_score.example.com/",
    "https://8.8.8.8/",
    "https://[2606:4700:4700::1111]:443/",
    "HTTPS://EXAMPLE.COM/",
    "https://localhost.example.com/",
    "https://127.0.0.1.example.com/",
]

FAULTS = {
    "": "must be a URL",
    "nonsense": "must be a URL",
    "https://": "must name a host",
    "https:///path": "must name a host",
    "https:example.com": "must be a URL",
    "//example.com/": "must be a URL",
    "javascript:alert(1)": "must be a URL",
    "ftp://example.com/": "must begin with https://",
    "file:///etc/passwd": "must name a host",
    "https://exa\rmple.com/": "must be ASCII",
    "https://example.com/a\r\nX-Injected: 1": "must be ASCII",
    "https://example.com/\0": "must be ASCII",
    "https://example.com/\x7f": "must be ASCII",
    "https://example.com/\n": "must be ASCII",
    "\thttps://example.com/": "must be ASCII",
    "https://example.com /": "must be ASCII",
    "https://example.com/%0d%0aX: 1": "must be ASCII",
    "https://example.com/%00": "must be ASCII",
    "https://example.com/%7F": "must be ASCII",
    "https://例え.jp/": "must be ASCII",
    "https://ⓛocalhost/": "must be ASCII",
    "https://\uff11\uff12\uff17.0.0.1/": "must be ASCII",
    "https://127\u30020\u30020\u30021/": "must be ASCII",
    "https://example.com/\u2028": "must be ASCII",
    "https://example.com/#x": "must have no fragment",
    "https://example.com#@127.0.0.1/": "must have no fragment",
    "https://user@example.com/": "must not contain a user or password",
    "https://user:secret@example.com/": "must not contain a user or password",
    "https://@example.com/": "must not contain a user or password",
    "https://example.com\\@127.0.0.1/": "must not contain a user or password",
    "https://example.com\\.evil.com/": "must name a host",
    "https://example.com/a\\b": "must be a URL",
    "https://example.com/%zz": "must be a URL",
    "https://example.com/<x>": "must be a URL",
    "https://exam%70le.com/": "must name a host",
    "https://example.com:/": "must name a host",
    "https://example.com:x/": "must name a host",
    "https://example.com:-1/": "must name a host",
    "https://example.com:443:443/": "must name a host",
    "https://example.com:0/": "must have a port from 1 to 65535",
    "https://example.com:00443/": "must have a port from 1 to 65535",
    "https://example.com:65536/": "must have a port from 1 to 65535",
    "https://example.com:99999/": "must have a port from 1 to 65535",
    "https://127.1/": "must write an IPv4 address as four decimal numbers",
    "https://127.0.1/": "must write an IPv4 address as four decimal numbers",
    "https://2130706433/": "must write an IPv4 address as four decimal numbers",
    "https://0x7f000001/": "must write an IPv4 address as four decimal numbers",
    "https://0x7f.0.0.1/": "must write an IPv4 address as four decimal numbers",
    "https://127.0.0.0x1/": "must write an IPv4 address as four decimal numbers",
    "https://0177.0.0.1/": "must write an IPv4 address as four decimal numbers",
    "https://08.8.8.8/": "must write an IPv4 address as four decimal numbers",
    "https://256.1.1.1/": "must write an IPv4 address as four decimal numbers",
    "https://1.2.3.4.5/": "must write an IPv4 address as four decimal numbers",
    "https://0/": "must write an IPv4 address as four decimal numbers",
    "https://0x/": "must write an IPv4 address as four decimal numbers",
    "https://[::1/": "must name a host",
    "https://[]/": "must write an IPv4 address as four decimal numbers",
    "https://[1:2]/": "must write an IPv4 address as four decimal numbers",
    "https://[fe80::1%eth0]/": "must name a host",
    "https://[fe80::1%25eth0]/": "must name a host",
    "https://[v1.fe80::a]/": "must name a host",
    "https://example.com./": "must name a host as DNS has it",
    "https://127.0.0.1./": "must name a host as DNS has it",
    "https://./": "must name a host as DNS has it",
    "https://a..b/": "must name a host as DNS has it",
    "https://.example.com/": "must name a host as DNS has it",
    "https://-example.com/": "must name a host as DNS has it",
    "https://example-.com/": "must name a host as DNS has it",
    f"https://{'a' * 64}.com/": "must name a host as DNS has it",
    f"https://{'.'.join(['a' * 60] * 5)}/": "must name a host as DNS has it",
    f"https://example.com/{'a' * 2000}": "must have at most 2000 characters",
    "https://[fec0::1]/": "must not lead to fec0::1, which is site-local (RFC 3879), not a public address",
    "https://168.63.129.16/": "must not lead to 168.63.129.16, which is a cloud's metadata (Azure)",
    "https://[3fff::1]/": "must not lead to 3fff::1, which is documentation",
    "https://[2620:4f:8000::1]/": "must not lead to 2620:4f:8000::1, which is direct delegation AS112",
    "https://[::ffff:127.0.0.1]/": "must not lead to ::ffff:7f00:1, which is IPv4-mapped",
    "https://[64:ff9b::10.0.0.1]/": "must not lead to 64:ff9b::a00:1, which is IPv4-IPv6 translation",
    "https://169.254.169.254/latest": "must not lead to 169.254.169.254, which is link-local",
}

TRUSTED = {
    "http://example.com/": f"must begin with https://; {ALLOW_PRIVATE}",
    "https://127.0.0.1/": "must not lead to 127.0.0.1, which is loopback (RFC 1122), not a public address; "
    f"{ALLOW_PRIVATE}",
    "https://[::1]:9000/": f"must not lead to ::1, which is loopback (RFC 4291), not a public address; {ALLOW_PRIVATE}",
    "https://localhost/": f"must not lead to localhost, which is a name of this network; {ALLOW_PRIVATE}",
    "https://a.LOCALHOST/": f"must not lead to a.LOCALHOST, which is a name of this network; {ALLOW_PRIVATE}",
    "https://metadata.google.internal/": f"must not lead to metadata.google.internal, which is a name of this network; "
    f"{ALLOW_PRIVATE}",
    "https://printer.local/": f"must not lead to printer.local, which is a name of this network; {ALLOW_PRIVATE}",
    "https://receiver:8443/": f"must not lead to receiver, which is a name of this network; {ALLOW_PRIVATE}",
    "https://example.com:22/": "must not have port 22, which is another protocol's",
    "https://example.com:25/": "must not have port 25, which is another protocol's",
    "https://example.com:6667/": "must not have port 6667, which is another protocol's",
}


@pytest.mark.parametrize("url", FINE)
def test_what_an_endpoint_may_be(url: str) -> None:
    for allow_private in (False, True):
        assert url_faults(url, allow_private=allow_private) == []


@pytest.mark.parametrize("url", FAULTS)
def test_what_no_endpoint_may_be(url: str) -> None:
    """X16: each on a trusted network, too."""
    for allow_private in (False, True):
        found = url_faults(url, allow_private=allow_private)
        assert any(fault.startswith(FAULTS[url]) for fault in found), found


@pytest.mark.parametrize("url", TRUSTED)
def test_what_a_trusted_network_may_have(url: str) -> None:
    """U20: the fault names the setting that would let it in."""
    assert url_faults(url, allow_private=False) == [TRUSTED[url]]
    assert url_faults(url, allow_private=True) == []


def test_http_to_an_address_that_is_not_public_has_both_faults() -> None:
    """P13."""
    scheme, address = url_faults("http://[fec0::1]/", allow_private=False)
    assert scheme == f"must begin with https://; {ALLOW_PRIVATE}"
    assert address == "must not lead to fec0::1, which is site-local (RFC 3879), not a public address"


@given(
    st.text(max_size=30)
    | st.from_regex(r"https://[0-9a-fxA-FX.\[\]:%@#?/\\ a-z-]{1,25}", fullmatch=True)
    | st.ip_addresses().map(lambda address: f"https://[{address}]/" if address.version == 6 else f"https://{address}/")
)
def test_the_library_that_connects_reads_the_same_host_out_of_it(url: str) -> None:
    """So that no spelling is checked as one place and connected to as another."""
    if url_faults(url, allow_private=False):
        return
    read = URL(url, encoded=True)
    host = (read.raw_host or "").lower()
    authority = url.split("//", 1)[1].split("/", 1)[0].split("?", 1)[0]
    assert authority.lower() in {host, f"[{host}]", f"{host}:{read.port}", f"[{host}]:{read.port}"}
    assert (read.user, read.password, read.fragment) == (None, None, "")
    if host.replace(".", "").isdigit() or ":" in host:
        assert address_fault(host, allow_private=False) is None


def test_spellings_of_one_url_are_one_endpoint() -> None:
    assert (
        same_url("HTTPS://Example.COM:443/Aa?B") == same_url("https://example.com/Aa?B") == "https://example.com/Aa?B"
    )
    assert same_url("https://example.com:8443/a") == "https://example.com:8443/a"
    assert same_url("https://example.com?x=:443") == "https://example.com?x=:443"
    assert same_url("http://a:80/") == "http://a/"
