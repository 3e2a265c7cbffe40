"""From settings to a connection: TLS that proves who is there, and a password that is read again at each reconnect."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import parse_qs, unquote, urlunsplit

from meter.config import Settings
from meter.errors import ConfigError
from meter.redis_urls import split_hosts
from meter.setting_files import url_again


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files for `rediss://`: who signs servers, "" for the list of the system, and our own certificate."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def check(self) -> None:
        """Raises `ConfigError` that names the setting whose file cannot be used."""
        context = ssl.create_default_context()
        if self.ca_file:
            _try("METER_REDIS_CA_FILE", self.ca_file, lambda: context.load_verify_locations(self.ca_file))
        if self.key_file and not self.cert_file:
            raise ConfigError(f"METER_REDIS_KEY_FILE={self.key_file}: METER_REDIS_CERT_FILE is missing")
        if self.cert_file:
            key = self.key_file or None  # the key may be in the file of the certificate
            _try("METER_REDIS_CERT_FILE", self.cert_file, lambda: context.load_cert_chain(self.cert_file, key))

    def options(self, url: str) -> dict[str, object]:
        """What redis-py is told, for a URL that begins with rediss://; its own options in the URL come before these.

        The name is checked by default: redis-py before 6 takes any certificate of a known CA.
        """
        if split_hosts(url).scheme != "rediss":
            return {}
        told = parse_qs(split_hosts(url).query).get("ssl_cert_reqs", ["required"])[-1]
        options: dict[str, object] = {"ssl_check_hostname": told == "required", "ssl_cert_reqs": "required"}
        files = {"ssl_ca_certs": self.ca_file, "ssl_certfile": self.cert_file, "ssl_keyfile": self.key_file}
        return options | {name: path for name, path in files.items() if path}


NO_TLS_FILES = TlsFiles()


class ReadAgain:
    """User and password of a URL that a file has, as it has them when a connection is made. In place of redis-py's own
    `CredentialProvider`.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read

    def get_credentials(self) -> tuple[str, ...]:
        """(user, password), (password,) or (): as AUTH wants it."""
        parts = split_hosts(self._read())
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not password:
            return ()
        return (user, password) if user else (password,)

    async def get_credentials_async(self) -> tuple[str, ...]:
        """The same."""
        return self.get_credentials()


def tls_of(settings: Settings) -> TlsFiles:
    """The files for TLS. Raises `ConfigError` for one that cannot be used, or where no URL is for TLS."""
    files = TlsFiles(settings.redis_ca_file, settings.redis_cert_file, settings.redis_key_file)
    if files != NO_TLS_FILES and not any(url.startswith("rediss") for url in (settings.redis_url, settings.arq_url)):
        raise ConfigError("METER_REDIS_URL: METER_REDIS_CA_FILE, …_CERT_FILE and …_KEY_FILE are for rediss:// only")
    files.check()
    return files


def reader_of(url: str, path: str) -> Callable[[], str] | None:
    """Reads a URL's file again, where it has one."""
    return partial(url_again, url, path) if path else None


def without_credentials(url: str) -> str:
    """The URL for a connection that gets user and password otherwise."""
    parts = split_hosts(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _try(setting: str, path: str, load: Callable[[], object]) -> None:
    try:
        load()
    except ssl.SSLError as error:
        raise ConfigError(f"{setting}={path}: no PEM file that can be used ({error.reason or error})") from None
    except OSError as error:
        raise ConfigError(f"{setting}={path}: {error.strerror}") from None
