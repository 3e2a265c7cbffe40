"""The `meter` command. Thin: reads options, composes parts, turns errors into one line and an exit code."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
import uvicorn

from meter.cli.acting import Actor, actor_of
from meter.cli.checking import check
from meter.cli.codes import codes
from meter.cli.deployment import DATA_DIR, DataDir, settings_of
from meter.cli.ending import complain, run
from meter.cli.exporting import exports
from meter.cli.imports import imports
from meter.cli.jobs import jobs
from meter.cli.keys import keys
from meter.cli.measure import Json, commands
from meter.cli.processes import meeting_place
from meter.cli.proxy import proxy
from meter.cli.rate_cards import rate_cards
from meter.cli.starting import (
    begin_log,
    check_address,
    check_open,
    check_socket,
    end_on_sigterm,
    ends_of,
    tell_start,
    url_of,
)
from meter.cli.support import support
from meter.cli.top_ups import top_ups
from meter.errors import ConfigError, MeterError
from meter.heap import collect_garbage_rarely

if TYPE_CHECKING:
    from meter.config import Settings

app = typer.Typer(
    name="meter",
    no_args_is_help=True,
    rich_markup_mode=None,  # a table of boxes cuts the options of `proxy` at 80 columns
    pretty_exceptions_enable=False,
    help="Prepaid credits, holds and plans for paid APIs, decided atomically in Redis.",
)

app.command()(proxy)
app.add_typer(commands)
app.add_typer(jobs, name="jobs")
app.add_typer(keys, name="keys")
app.add_typer(codes, name="codes")
app.add_typer(top_ups, name="top-up")
app.add_typer(rate_cards, name="rate-cards")
app.add_typer(imports, name="import")
app.add_typer(support)
app.add_typer(exports)

Host = Annotated[str | None, typer.Option(help="Address to listen on. [METER_HOST, 127.0.0.1]", show_default=False)]
Port = Annotated[int | None, typer.Option(help="Port to listen on. [METER_PORT, 8000]", show_default=False)]

Open = Annotated[
    bool | None,
    typer.Option(
        "--unsafe-open-bind",
        help="Listen beyond this machine without keys. [METER_UNSAFE_OPEN_BIND]",
        show_default=False,
    ),
]

GRACE_SECONDS = 10
KEEP_ALIVE_SECONDS = 75
"""Longer than a gateway's pool keeps an idle connection (nginx: 60 s), so that the gateway closes first."""


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
    unsafe_open_bind: Open = None,
) -> None:
    """Run everything, with nothing to install: the API, the worker and a Redis-compatible server."""
    from meter.config import load_settings
    from meter.dev.instance import forget_instance, write_instance
    from meter.dev.processes import NO_TLS, RedisKeeper, ledger_file_of, store_url_of, worker_process

    end_on_sigterm()
    try:
        alone = {"uds": "", "processes": 1, "unsafe_open_bind": unsafe_open_bind}
        settings = load_settings(host=host, port=port, **alone)  # a bad setting is told before anything starts
        begin_log(settings)
        check_open(settings)
        check_address("METER", settings.host, settings.port)
        with RedisKeeper(data_dir) as server:
            settings = load_settings(
                host=host,
                port=port,
                redis_url=server.url,
                store_url=store_url_of(data_dir),
                ledger_file=ledger_file_of(data_dir),
                **NO_TLS,
                **alone,
            )
            check(settings)
            worker = worker_process(settings, data_dir)
            try:
                worker.start()
                address = url_of(settings.host, settings.port)
                tell_start("dev", address=address, **ends_of(settings), data=f"{data_dir}/")
                write_instance(data_dir, settings, address)
                _serve(settings)
            finally:
                forget_instance(data_dir)
                worker.stop()
    except ConfigError as error:
        complain(error, 2)
    except MeterError as error:
        complain(error, 3)
    except OSError as error:
        complain(ConfigError(f"--data-dir {data_dir}: {error.strerror}: {error.filename}"), 2)


@app.command()
def serve(
    host: Host = None,
    port: Port = None,
    uds: Annotated[Path | None, typer.Option(help="Listen on a unix socket instead. [METER_UDS]")] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", "--workers", min=1, help="Processes that share the address. [METER_PROCESSES, 1]"),
    ] = None,
    unsafe_open_bind: Open = None,
) -> None:
    """Serve the API on the Redis of METER_REDIS_URL."""
    from meter.config import load_settings

    end_on_sigterm()
    try:
        socket = None if uds is None else str(uds)
        settings = load_settings(
            host=host, port=port, uds=socket, processes=processes, unsafe_open_bind=unsafe_open_bind
        )
        begin_log(settings)
        if settings.uds:
            check_socket(Path(settings.uds))
        else:
            check_open(settings)
            check_address("METER", settings.host, settings.port)
        check(settings)
        address = f"unix:{settings.uds}" if settings.uds else url_of(settings.host, settings.port)
        tell_start("serve", address=address, **ends_of(settings), processes=settings.processes)
        if settings.processes == 1:
            _serve(settings)
        else:
            with meeting_place(settings):
                _serve(settings)
    except ConfigError as error:
        complain(error, 2)


@app.command()
def worker(
    host: Annotated[str | None, typer.Option(help="Address of its probes. [METER_WORKER_HOST, 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port of its probes and metrics. [METER_WORKER_PORT, none]")] = None,
) -> None:
    """Run the worker: the sweep of due holds and grants, and the other background jobs."""
    from meter.config import load_settings
    from meter.worker.queue import queue_place
    from meter.worker.run import run_worker

    try:
        settings = load_settings(worker_host=host, worker_port=port)
        begin_log(settings)
        if settings.worker_port:
            check_address("METER_WORKER", settings.worker_host, settings.worker_port)
        queue_place(settings)
        check(settings, queue=True)
        probes = {"probes": url_of(settings.worker_host, settings.worker_port)} if settings.worker_port else {}
        tell_start("worker", **probes, **ends_of(settings))
        run_worker(settings)
    except ConfigError as error:
        complain(error, 2)


@app.command()
def rebuild(
    partition: Annotated[int | None, typer.Option(help="One partition only; all when not given.")] = None,
    user: Annotated[str | None, typer.Option(help="One user's partition only.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Also when another Redis serves the store; do not ask.")] = False,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Make Redis again from the store, open holds included, and report what could not be."""
    from meter.cli import operate

    def agreed(what: str) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(f"meter: {what}. Go on?", err=True))

    settings, who = settings_of(data_dir), actor_of(actor)
    run(operate.rebuild(settings, partition, user, who, as_json=as_json, agreed=agreed))


@app.command()
def doctor(
    only: Annotated[str, typer.Option(help="One check alone, by its name.")] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Examine the deployment: what is wrong, and what to do about it; exit code 1 where something fails."""
    from meter.cli.examining import doctor as examine

    run(examine(settings_of(data_dir), only, as_json=as_json))


@app.command()
def reconcile(data_dir: DataDir = DATA_DIR, as_json: Json = False) -> None:
    """Compare Redis with the store, account by account; exit code 1 on any drift."""
    from meter.cli import operate

    run(operate.reconcile(settings_of(data_dir), as_json=as_json))


@app.command()
def repartition(
    partitions: Annotated[int, typer.Argument(help="How many partitions there are to be.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    actor: Actor = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Change the number of partitions of a deployment that has data, while no process of it runs."""
    from meter.cli.repartition import repartition as moved

    def agreed(what: str) -> bool:
        return yes or (sys.stdin.isatty() and typer.confirm(f"meter: {what}. Go on?", err=True))

    settings, who = settings_of(data_dir), actor_of(actor)
    run(moved(settings, partitions, who, as_json=as_json, agreed=agreed))


@app.command()
def rollup(
    from_: Annotated[
        str, typer.Option("--from", help="Count everything again from the hour of this time on (2030-01-31T00:00Z).")
    ] = "",
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Count in the usage figures what they do not have yet; what was cut off goes on."""
    from meter.cli import operate

    run(operate.rollup(settings_of(data_dir), from_, as_json=as_json))


@app.command()
def migrate(
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a store that is away.")] = 60,
    data_dir: DataDir = DATA_DIR,
    as_json: Json = False,
) -> None:
    """Give the store the schema of this version, and end; every process does it too when it starts."""
    from meter.cli.migrating import migrate as migrated

    run(migrated(settings_of(data_dir), wait, as_json=as_json))


@app.command()
def schema(
    backend: Annotated[Literal["sql", "nosql"], typer.Option(help="SQL tables, or MongoDB validators.")] = "sql",
    dialect: Annotated[Literal["postgres", "mysql", "sqlite"], typer.Option(help="Of the SQL.")] = "postgres",
) -> None:
    """Print the schema of the durable ledger, made from the models."""
    from meter.store.generated_schema import nosql_schema, sql_schema

    typer.echo(sql_schema(dialect) if backend == "sql" else nosql_schema())


def _serve(settings: Settings) -> None:
    """Runs uvicorn until it is told to stop."""
    from meter.api.lane.protocol import HotProtocol
    from meter.app import create_app
    from meter.http.bounded import BoundedProtocol

    # Several processes compose their own, from the environment.
    app = create_app(settings) if settings.processes == 1 else "meter.cli.child:application"
    collect_garbage_rarely()
    uvicorn.run(
        app,
        factory=settings.processes > 1,
        host=settings.host,
        port=settings.port,
        uds=settings.uds or None,
        http=HotProtocol if settings.hot_lane else BoundedProtocol,
        proxy_headers=False,  # nothing here depends on the client's address, and the lane finds the application itself
        workers=settings.processes,
        access_log=False,
        log_config=None,  # ours, see meter/log.py
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="on",
    )
