"""What a connection that was not made means, by the words of the TLS library and of the resolver: they are the same for
Redis and every store, and drivers hand them on in causes of causes.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """What one server's options of TLS are called: who signs it, our own certificate, and how to leave TLS out."""

    ca: str
    certificate: str
    plain: str


# Words in small letters, and what they mean with the names of the options. The first that is found counts.
_TLS = (
    (("hostname mismatch", "ip address mismatch"), "its certificate is for another name: use the name that it has"),
    (("certificate has expired",), "its certificate has expired"),
    (
        ("self-signed", "self signed", "unable to get local issuer", "unable to get issuer"),
        "nobody known has signed its certificate: {ca} names the CA",
    ),
    (("certificate_verify_failed", "certificate verify failed"), "its certificate is refused"),
    (
        ("certificate required", "certificate_required", "alert bad certificate", "handshake failure"),
        "it wants a client certificate: {certificate}",
    ),
    (("wrong_version_number", "wrong version number", "record layer failure"), "it speaks no TLS there: {plain}"),
)
_NO_ADDRESS = (
    *("name or service not known", "nodename nor servname", "no address associated", "no data of requested type"),
    *("label empty or too long", "label too long"),
)
"""What resolvers say of a name that nobody knows; one that cannot be asked now says something else."""


def texts_of(error: BaseException) -> list[str]:
    """What an error and its causes say, in small letters."""
    return [text.lower() for text in _texts(error)]


def tls_refusal(texts: Sequence[str], options: TlsOptions) -> str:
    """Why TLS is refused, by either side, and what would mend it; "" where it is not that."""
    for words, meaning in _TLS:
        if any(word in text for text in texts for word in words):
            return meaning.format(ca=options.ca, certificate=options.certificate, plain=options.plain)
    return ""


def has_no_address(texts: Sequence[str]) -> bool:
    """Whether the host's name is one that nobody knows."""
    return any(words in text for text in texts for words in _NO_ADDRESS)


def first_line(error: BaseException) -> str:
    """What an error says, as far as it fits on a line with more."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")


def _texts(error: BaseException | None) -> Iterator[str]:
    """Those of the TLS library have their words in fields."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield str(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            yield error.verify_message or ""
        error = error.__cause__ or error.__context__
