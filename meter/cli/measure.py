"""Commands beside serving: replay, bench and proxy. Thin, like `meter.cli`, which adds them to `meter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from meter.errors import ConfigError, MeterError

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def complain(error: Exception, code: int) -> NoReturn:
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
        complain(ConfigError("replay: name a trace file, or --verify a journal"), 2)
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
        complain(error, 2)
    raise typer.Exit(run_replay(options, out, err, as_json=as_json))


@commands.command()
def bench(
    what: Annotated[
        str,
        typer.Argument(help="Nothing for the requests, flush for the store, jobs for the worker, proxy for streams."),
    ] = "requests",
    rounds: Annotated[int, typer.Option(help="How often each case runs, in turn with the others.")] = 5,
    seconds: Annotated[float, typer.Option(help="Of load per case and round.")] = 3.0,
    connections: Annotated[int, typer.Option(help="Of the load generator.")] = 64,
    cases: Annotated[str, typer.Option(help="Comma-separated; all when not given.")] = "",
    deep: Annotated[bool, typer.Option(help="Also with up to a million accounts, and memory.")] = False,
    store: Annotated[
        str | None,
        typer.Option(help="flush, jobs: URL of an empty database, sqlite, or postgres for one of the wheel. [sqlite]"),
    ] = None,
    subscriptions: Annotated[int, typer.Option(help="jobs: How many are due at once.")] = 100_000,
    grants: Annotated[int, typer.Option(help="jobs: How many end at once, and then as many holds.")] = 100_000,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file and the picture.")] = Path("bench-results"),
) -> None:
    """Measure this machine: requests beside a bare Starlette echo, the flush, the jobs, or what the proxy adds."""
    from meter import bench as measure

    try:
        if what == "flush":
            code = measure.run_flush_bench(measure.FlushBenchOptions(store=store, out=out))
        elif what == "jobs":
            code = measure.run_jobs_bench(
                measure.JobsBenchOptions(store=store, subscriptions=subscriptions, grants=grants, out=out)
            )
        elif what == "proxy":
            code = measure.run_proxy_bench(measure.ProxyBenchOptions(rounds=rounds, seconds=seconds, out=out))
        elif what == "requests":
            chosen = tuple(name for name in cases.split(",") if name)
            options = measure.BenchOptions(
                rounds=rounds, seconds=seconds, connections=connections, cases=chosen, deep=deep, out=out
            )
            code = measure.run_bench(options)
        else:
            complain(ConfigError(f"bench: {what!r} is none of requests, flush, jobs and proxy"), 2)
    except (ConfigError, measure.OptionError) as error:
        complain(error, 2)
    except MeterError as error:
        complain(error, 3)
    raise typer.Exit(code)


@commands.command()
def proxy(
    upstream: Annotated[str, typer.Option(help="Where requests go, such as https://api.openai.com.")],
    meter: Annotated[
        str | None, typer.Option(help="A sidecar; the Redis of METER_REDIS_URL by default.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    uds: Annotated[Path | None, typer.Option(help="Listen on a unix socket instead.")] = None,
    path_prefix: Annotated[str, typer.Option(help="What is metered; the rest is forwarded for free.")] = "/",
    skip_path: Annotated[list[str] | None, typer.Option(help="Not metered; may be given several times.")] = None,
    user_header: Annotated[str, typer.Option(help="The header that names who pays.")] = "X-User-Id",
    estimate_header: Annotated[
        str, typer.Option(help="The header that tells how much to hold.")
    ] = "X-Estimated-Tokens",
    estimate: Annotated[int, typer.Option(help="How much to hold without that header.", min=0)] = 100,
    forward_identity: Annotated[bool, typer.Option(help="Pass the identity header on.")] = True,
    preserve_host: Annotated[bool, typer.Option(help="Pass the client's Host on.")] = False,
    usage_format: Annotated[
        Literal["auto", "key", "openai-chat", "openai-responses", "anthropic"],
        typer.Option(help="Where responses tell their usage."),
    ] = "auto",
    usage_key: Annotated[str | None, typer.Option(help="The dotted key of the usage, for auto and key.")] = None,
    usage_header: Annotated[str | None, typer.Option(help="A response header that tells the credits.")] = None,
    inject_include_usage: Annotated[
        bool, typer.Option(help="Ask streaming chat completions for their usage, unseen by the client.")
    ] = False,
    charge_statuses: Annotated[str, typer.Option(help="Responses that cost, such as 2xx,404.")] = "2xx",
    on_missing_usage: Annotated[
        Literal["release", "estimate", "reserved"], typer.Option(help="What a response without usage costs.")
    ] = "release",
    on_disconnect: Annotated[
        Literal["release", "estimate", "reserved"], typer.Option(help="The same, when the client left before.")
    ] = "estimate",
    over: Annotated[Literal["cap", "overdraft"], typer.Option(help="When usage exceeds the hold.")] = "cap",
    ttl: Annotated[float | None, typer.Option(help="Seconds a hold lives; it is renewed.", show_default=False)] = None,
    fail: Annotated[Literal["closed", "open"], typer.Option(help="When nobody can say who may spend.")] = "closed",
    disconnect: Annotated[
        Literal["drain", "cancel"], typer.Option(help="When the client leaves: read on for the usage, or stop.")
    ] = "drain",
    drain_seconds: Annotated[float, typer.Option(help="How long to read on.")] = 60.0,
    drain_bytes: Annotated[int, typer.Option(help="How much to read on.")] = 16 * 2**20,
    connect_timeout: Annotated[float, typer.Option(help="Seconds to reach the upstream.")] = 10.0,
    upstream_silence: Annotated[float, typer.Option(help="Seconds the upstream may say nothing.")] = 600.0,
) -> None:
    """Meter any upstream: a reverse proxy that holds, forwards, reads the usage and commits."""
    from meter.charging import Missing
    from meter.config import load_settings
    from meter.proxy import ProxyOptions, parse_statuses, run_proxy
    from meter.usage import Format

    try:
        options = ProxyOptions(
            upstream=upstream,
            meter_url=meter,
            host=host,
            port=port,
            uds=uds,
            path_prefix=path_prefix,
            skip_paths=tuple(skip_path or ()),
            user_id_header=user_header,
            estimated_tokens_header=estimate_header,
            default_estimated_tokens=estimate,
            forward_identity=forward_identity,
            preserve_host=preserve_host,
            usage_format=Format(usage_format),
            usage_key=usage_key,
            usage_header=usage_header,
            inject_include_usage=inject_include_usage,
            charge_statuses=parse_statuses(charge_statuses),
            on_missing_usage=Missing(on_missing_usage),
            on_disconnect=Missing(on_disconnect),
            over=over,
            ttl_seconds=ttl,
            fail=fail,
            disconnect=disconnect,
            drain_seconds=drain_seconds,
            drain_bytes_max=drain_bytes,
            connect_timeout_seconds=connect_timeout,
            upstream_silence_seconds=upstream_silence,
        )
        run_proxy(load_settings(), options)
    except ConfigError as error:
        complain(error, 2)
