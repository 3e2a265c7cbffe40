"""How a process that goes on begins: its log, what is odd about its environment, and one line that says what runs."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from importlib.metadata import version
from pathlib import Path

from meter.config import Settings, remarks
from meter.errors import ConfigError
from meter.log import configure, logger, without_password

_log = logger("meter")


def begin_log(settings: Settings) -> None:
    """Sends the log to stderr as the settings say, and warns of what nobody reads."""
    configure(settings.log_format, settings.log_level)
    for remark in remarks(os.environ):
        _log.warning(remark)


def end_on_sigterm() -> None:
    """SIGTERM ends the process as its end is written: once. A second one (uvicorn raises the one that stopped it again,
    and whoever stops a group of processes may send two) must not cut that off.
    """

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)


def tell_start(process: str, **fields: object) -> None:
    """The one line that says what has started, and on what."""
    _log.info(f"meter {process} starts", version=version("meter-sidecar"), **fields)


def ends_of(settings: Settings) -> dict[str, object]:
    """The Redis and the store of a process, as they may be shown."""
    return {
        "redis": without_password(settings.redis_url),
        "store": without_password(settings.store_url),
        "partitions": settings.partitions,
    }


def url_of(host: str, port: int) -> str:
    """Where something listens."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def check_open(settings: Settings) -> None:
    """Raises `ConfigError` where whoever reaches this machine could add credits to any account."""
    from meter.http.browsers import is_loopback

    if settings.uds or is_loopback(settings.host) or settings.auth == "keys" or settings.unsafe_open_bind:
        return
    raise ConfigError(
        f"METER_HOST={settings.host}: others than this machine could reach it, and nothing asks who they are. Set "
        "METER_AUTH=keys (`meter keys create --admin` makes the first key), or METER_UNSAFE_OPEN_BIND=1 where a "
        "firewall keeps everybody else out"
    )


def check_address(variables: str, host: str, port: int) -> None:
    """Raises `ConfigError`, with the names of the two variables, when nothing can listen there. A host may have an
    address of a family that is off here.
    """
    faults: list[OSError] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, _, _, _, address in found:
            try:
                socket.create_server((str(address[0]), port), family=family).close()
            except OSError as error:
                faults.append(error)
        if len(faults) < len(found):
            faults = [fault for fault in faults if fault.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)]
    except OSError as error:
        faults.append(error)
    if faults:
        place = f"{variables}_HOST={host} {variables}_PORT={port}"
        raise ConfigError(f"{place}: cannot listen there: {faults[0].strerror}")


def check_socket(path: Path) -> None:
    """Removes the socket of a process that was killed. Raises `ConfigError` where somebody listens on it, or nobody
    can.
    """
    place = f"METER_UDS={path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as found:
        try:
            found.connect(str(path))
        except FileNotFoundError:
            if not path.absolute().parent.is_dir():
                raise ConfigError(f"{place}: there is no folder {path.absolute().parent}") from None
        except ConnectionRefusedError:
            if not path.is_socket():
                raise ConfigError(f"{place}: there is a file of that name that is no socket") from None
            path.unlink()
        except OSError as error:
            raise ConfigError(f"{place}: cannot listen there: {error}") from None
        else:
            raise ConfigError(f"{place}: somebody listens there already")
