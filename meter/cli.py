"""The `meter` command. Thin: reads options, composes parts, turns errors into one line and an exit code.

Exit codes: 0 done, 1 the check that was asked for failed, 2 wrong usage or settings, 3 a server could not be reached.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
import uvicorn

from meter.errors import ConfigError, MeterError

if TYPE_CHECKING:
    from meter.config import Settings

app = typer.Typer(
    name="meter",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Prepaid credits, holds and plans for paid APIs, decided atomically in Redis.",
)

Host = Annotated[str | None, typer.Option(help="Address to listen on. [METER_HOST, 127.0.0.1]", show_default=False)]
Port = Annotated[int | None, typer.Option(help="Port to listen on. [METER_PORT, 8000]", show_default=False)]

GRACE_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""Longer than a gateway's pool keeps an idle connection (nginx: 60 s), so that the gateway closes first."""


def _fail(error: Exception, code: int) -> NoReturn:
    typer.echo(f"meter: {error}", err=True)
    raise typer.Exit(code)


@app.callback(invoke_without_command=True)
def main(show_version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Prepaid credits, holds and plans for paid APIs, decided atomically in Redis."""
    if show_version:
        typer.echo(version("meter-sidecar"))
        raise typer.Exit


@app.command()
def dev(
    host: Host = None,
    port: Port = None,
    data_dir: Annotated[Path, typer.Option(help="Where state lives; it survives restarts.")] = Path(".meter"),
) -> None:
    """Run everything, with nothing to install: the API, the worker and a Redis-compatible server."""
    from meter.app import check_partitions
    from meter.config import load_settings
    from meter.dev import embedded_server, worker_process

    _log_to_stderr()
    # uvicorn raises the signal that stopped it once more; by then we must still stop the other processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        load_settings(host=host, port=port)  # a bad setting is told before anything starts
        with embedded_server(data_dir) as server:
            settings = load_settings(host=host, port=port, redis_url=server.url)
            asyncio.run(check_partitions(settings))
            worker = worker_process(settings, data_dir)
            worker.start()
            typer.echo(f"meter: http://{settings.host}:{settings.port}  redis {server.url}  data {data_dir}/", err=True)
            try:
                _serve(settings)
            finally:
                worker.stop()
    except ConfigError as error:
        _fail(error, 2)
    except MeterError as error:
        _fail(error, 3)


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    uds: Annotated[Path | None, typer.Option(help="Listen on a unix socket instead.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
) -> None:
    """Serve the API on the Redis of METER_REDIS_URL."""
    from meter.app import check_partitions
    from meter.config import load_settings

    _log_to_stderr()
    try:
        settings = load_settings(host=host, port=port)
        asyncio.run(check_partitions(settings))
        _serve(settings, uds, workers)
    except ConfigError as error:
        _fail(error, 2)


@app.command()
def worker() -> None:
    """Run the worker: the sweep of due holds and grants, and the other background jobs."""
    from meter.config import load_settings
    from workers.run import run_worker

    _log_to_stderr()
    try:
        run_worker(load_settings())
    except ConfigError as error:
        _fail(error, 2)


def _serve(settings: Settings, uds: Path | None = None, workers: int = 1) -> None:
    """Runs uvicorn until it is told to stop."""
    from meter.app import create_app

    uvicorn.run(
        # Several processes compose their own, from the environment.
        create_app(settings) if workers == 1 else "meter.asgi:app",
        host=settings.host,
        port=settings.port,
        uds=None if uds is None else str(uds),
        workers=workers,
        access_log=False,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="on",
    )


def _log_to_stderr() -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("arq").setLevel(logging.WARNING)
