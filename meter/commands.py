"""Commands beside serving: replay, bench and proxy. Thin, like `meter.cli`, which adds them to `meter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from meter.errors import ConfigError, MeterError

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def fail(error: Exception, code: int) -> NoReturn:
    """Ends the command with one line on stderr and an exit code."""
    typer.echo(f"meter: {error}", err=True)
    raise typer.Exit(code)


@commands.command()
def replay(
    trace: Annotated[
        Path | None, typer.Argument(help="CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="The sidecar. [http://127.0.0.1:8000]", show_default=False)] = None,
    speed: Annotated[str, typer.Option(help="Times real time, or max.")] = "max",
    users: Annotated[int, typer.Option(help="How many users share the rows.")] = 100,
    estimate: Annotated[str, typer.Option(help="Reserved on top of the context, or exact.")] = "256",
    release_share: Annotated[float, typer.Option(help="Share of the requests that fail upstream.")] = 0.0,
    rows: Annotated[int | None, typer.Option(help="Only that many rows.")] = None,
    credit: Annotated[str | None, typer.Option(help="Credits per user; enough for all when not given.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn by lot.")] = 0,
    prefix: Annotated[str | None, typer.Option(help="Of the user ids; a new one for each run by default.")] = None,
    concurrency: Annotated[int, typer.Option(help="Requests in flight.")] = 64,
    patience: Annotated[float, typer.Option(help="Seconds for which a call is repeated before the run stops.")] = 30.0,
    journal: Annotated[Path | None, typer.Option(help="Write sent and answered calls to this file.")] = None,
    verify: Annotated[Path | None, typer.Option(help="Send nothing: check the sidecar against a journal.")] = None,
    as_json: Json = False,
) -> None:
    """Replay real traffic through a running sidecar and check every credit; exit code 1 on any difference."""
    from rich.console import Console

    from meter.replay import (
        URL_DEFAULT,
        OptionError,
        ReplayOptions,
        parse_credit,
        parse_estimate,
        parse_speed,
        run_replay,
        run_verify,
    )

    out, err = Console(), Console(stderr=True)
    if (trace is None) == (verify is None):
        fail(ConfigError("replay: name a trace file, or --verify a journal"), 2)
    if trace is None:
        assert verify is not None  # noqa: S101 - one of the two, see above
        code = run_verify(
            verify, out, err, url=url, concurrency=concurrency, patience_seconds=patience, as_json=as_json
        )
        raise typer.Exit(code)
    try:
        options = ReplayOptions(
            trace=trace,
            url=url or URL_DEFAULT,
            speed=parse_speed(speed),
            users=users,
            estimate=parse_estimate(estimate),
            release_share=release_share,
            rows_max=rows,
            credit=None if credit is None else parse_credit(credit),
            seed=seed,
            prefix=prefix,
            concurrency=concurrency,
            patience_seconds=patience,
            journal=journal,
        )
    except OptionError as error:
        fail(error, 2)
    raise typer.Exit(run_replay(options, out, err, as_json=as_json))


@commands.command()
def bench(
    what: Annotated[str, typer.Argument(help="Nothing for the requests, or flush for the store.")] = "requests",
    rounds: Annotated[int, typer.Option(help="How often each case runs, in turn with the others.")] = 5,
    seconds: Annotated[float, typer.Option(help="Of load per case and round.")] = 3.0,
    connections: Annotated[int, typer.Option(help="Of the load generator.")] = 64,
    cases: Annotated[str, typer.Option(help="Comma-separated; all when not given.")] = "",
    deep: Annotated[bool, typer.Option(help="Also with up to a million accounts, and memory.")] = False,
    store: Annotated[str | None, typer.Option(help="flush: URL of an empty database; SQLite by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the picture.")] = Path("bench-results"),
) -> None:
    """Measure this machine: requests beside a bare Starlette echo, or the flush to a store."""
    from meter.bench import BenchOptions, FlushBenchOptions, OptionError, run_bench, run_flush_bench

    try:
        if what == "flush":
            code = run_flush_bench(FlushBenchOptions(store=store, out=out))
        elif what == "requests":
            chosen = tuple(name for name in cases.split(",") if name)
            options = BenchOptions(
                rounds=rounds, seconds=seconds, connections=connections, cases=chosen, deep=deep, out=out
            )
            code = run_bench(options)
        else:
            fail(ConfigError(f"bench: {what!r} is neither requests nor flush"), 2)
    except (ConfigError, OptionError) as error:
        fail(error, 2)
    except MeterError as error:
        fail(error, 3)
    raise typer.Exit(code)


@commands.command()
def proxy(
    upstream: Annotated[str, typer.Option(help="Where requests go, such as http://127.0.0.1:9000.")],
    meter: Annotated[str | None, typer.Option(help="URL of a sidecar; METER_REDIS_URL in process by default.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    path_prefix: Annotated[str, typer.Option(help="Metered: everything at and below this path.")] = "/",
    skip_path: Annotated[list[str] | None, typer.Option(help="Not metered; may be given several times.")] = None,
    user_id_header: Annotated[str, typer.Option(help="Who pays.")] = "X-User-Id",
    estimated_tokens_header: Annotated[str, typer.Option(help="How much to hold.")] = "X-Estimated-Tokens",
    default_estimated_tokens: Annotated[int, typer.Option(help="Held without that header.")] = 100,
    usage_format: Annotated[
        Literal["auto", "key", "openai-chat", "openai-responses", "anthropic"],
        typer.Option(help="Where a response tells its usage."),
    ] = "auto",
    usage_key: Annotated[str | None, typer.Option(help="Its dotted key, such as usage.total_tokens.")] = None,
    inject_include_usage: Annotated[bool, typer.Option(help="Ask OpenAI streams for their usage.")] = False,
    on_missing_usage: Annotated[
        Literal["release", "estimate", "reserved"], typer.Option(help="What a response without usage costs.")
    ] = "release",
    on_disconnect: Annotated[
        Literal["release", "estimate", "reserved"], typer.Option(help="The same, when the client left.")
    ] = "estimate",
    disconnect: Annotated[
        Literal["drain", "cancel"], typer.Option(help="Read on for the usage, or drop the upstream.")
    ] = "drain",
    fail_mode: Annotated[
        Literal["closed", "open"], typer.Option("--fail", help="When nobody can decide: 503, or forward for free.")
    ] = "closed",
) -> None:
    """Meter any upstream: reserve, forward, read the usage off the response, commit."""
    from meter.charging import Missing
    from meter.config import load_settings
    from meter.proxy import ProxyOptions, run_proxy
    from meter.usage import Format

    try:
        options = ProxyOptions(
            upstream=upstream,
            meter_url=meter,
            host=host,
            port=port,
            path_prefix=path_prefix,
            skip_paths=tuple(skip_path or ()),
            user_id_header=user_id_header,
            estimated_tokens_header=estimated_tokens_header,
            default_estimated_tokens=default_estimated_tokens,
            usage_format=Format(usage_format),
            usage_key=usage_key,
            inject_include_usage=inject_include_usage,
            on_missing_usage=Missing(on_missing_usage),
            on_disconnect=Missing(on_disconnect),
            disconnect=disconnect,
            fail=fail_mode,
        )
        run_proxy(load_settings(), options)
    except ConfigError as error:
        fail(error, 2)
