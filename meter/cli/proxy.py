"""`meter proxy`: its options are the fields of `ProxyOptions`, their names, types, defaults and words among it."""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from decimal import Decimal
from enum import Enum
from operator import getitem
from typing import Annotated, Any, get_args, get_type_hints

import typer

from meter.cli.ending import complain
from meter.errors import ConfigError
from meter.proxy.options import ProxyOptions, parse_statuses

# Where a flag is not the field's own name.
_FLAGS = {
    "meter_url": "meter",
    "skip_paths": "skip-path",
    "routes": "route",
    "background_ttl_seconds": "background-ttl",
    "user_id_header": "user-header",
    "estimated_tokens_header": "estimate-header",
    "default_estimated_tokens": "estimate",
    "minimum_estimated_tokens": "estimate-minimum",
    "maximum_estimated_tokens": "estimate-maximum",
    "request_bytes_max": "request-bytes",
    "request_memory_bytes": "request-memory",
    "inspect_bytes_max": "inspect-bytes",
    "ttl_seconds": "ttl",
    "drain_bytes_max": "drain-bytes",
    "connect_timeout_seconds": "connect-timeout",
    "upstream_silence_seconds": "upstream-silence",
    "client_stall_seconds": "client-stall",
    "grace_seconds": "grace",
    "upstream_connections_max": "upstream-connections",
}


def exact(number: float) -> int | Decimal:
    """The number that was written."""
    return int(number) if number == int(number) else Decimal(str(number))


# What a command line cannot give as it is: the type there, its default, and how it is read.
_READ: dict[str, tuple[Any, object, Any]] = {
    "skip_paths": (list[str] | None, None, lambda paths: tuple(paths or ())),
    "routes": (list[str] | None, None, lambda rules: tuple(rules or ())),
    "charge_statuses": (str, "2xx", parse_statuses),
    "default_estimated_tokens": (int, 100, int),
    "minimum_estimated_tokens": (int, 1, int),
    "maximum_estimated_tokens": (int | None, None, lambda most: most),
    "bytes_per_token": (float, 4.0, exact),
    "missing_usage_minimum": (float, 0.0, exact),
}


def proxy(**given: object) -> None:
    """Meter any upstream: a reverse proxy that holds, forwards, reads the usage and commits."""
    from meter.cli.checking import check
    from meter.cli.starting import begin_log, end_on_sigterm, ends_of, tell_start
    from meter.config import load_settings
    from meter.proxy.server import run_proxy

    end_on_sigterm()
    try:
        settings = load_settings()
        begin_log(settings)
        read: dict[str, Any] = {
            name: _READ[name][2](value) if name in _READ else value for name, value in given.items()
        }
        options = ProxyOptions(**read)
        if options.meter_url is None:
            check(settings)
        tell_start("proxy", **options.described(), **({} if options.meter_url else ends_of(settings)))
        run_proxy(settings, options)
    except ConfigError as error:
        complain(error, 2)


CHOICES_SHOWN_MAX = 6


def _signature() -> inspect.Signature:
    """One keyword per field, as Typer reads it."""
    hints = get_type_hints(ProxyOptions, include_extras=True)
    parameters = []
    for field in fields(ProxyOptions):
        kind, doc = get_args(hints[field.name])
        default = inspect.Parameter.empty if field.default is MISSING else field.default
        if field.name in _READ:
            kind, default, _ = _READ[field.name]
        flag = _FLAGS.get(field.name, field.name.replace("_", "-"))
        flags = f"--{flag}/--no-{flag}" if kind is bool else f"--{flag}"
        option = typer.Option(flags, help=_help(kind, doc.documentation), metavar=_metavar(kind))
        annotation: Any = getitem(Annotated, (kind, option))  # a subscript would be a type alias
        parameters.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        )
    return inspect.Signature(parameters)


def _is_long(kind: Any) -> bool:
    """Whether its choices would not fit into the first column of 80."""
    return isinstance(kind, type) and issubclass(kind, Enum) and len(kind) > CHOICES_SHOWN_MAX


def _metavar(kind: Any) -> str | None:
    return f"<{kind.__name__.lower()}>" if _is_long(kind) else None


def _help(kind: Any, text: str) -> str:
    return f"{text} One of: {', '.join(choice.value for choice in kind)}." if _is_long(kind) else text


proxy.__signature__ = _signature()  # type: ignore[attr-defined]
