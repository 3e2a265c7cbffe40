"""Commands beside serving: replay and bench. Thin, like `meter.cli`, which adds them to `meter`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meter.cli.ending import complain
from meter.errors import ConfigError, MeterError

commands = typer.Typer()

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


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
    card: Annotated[
        Path | None, typer.Option(help="Price the rows by this rate card: the body of PUT /credits/rate-cards/….")
    ] = None,
    model_column: Annotated[str | None, typer.Option(help="Column of the trace that names models. [Model]")] = None,
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
            card=card,
            model_column=model_column,
        )
    except OptionError as error:
        complain(error, 2)
    raise typer.Exit(run_replay(options, out, err, as_json=as_json))


@commands.command()
def bench(
    what: Annotated[
        str,
        typer.Argument(
            help="Nothing for the requests, flush for the store, jobs for the worker, proxy for streams, usage."
        ),
    ] = "requests",
    rounds: Annotated[int, typer.Option(help="How often each case runs, in turn with the others.")] = 10,
    seconds: Annotated[float, typer.Option(help="Of load per case and round.")] = 1.0,
    connections: Annotated[int, typer.Option(help="Of the load generator.")] = 64,
    cases: Annotated[str, typer.Option(help="Comma-separated, such as echo,deduct; all when not given.")] = "",
    ratelimit: Annotated[
        str | None, typer.Option(help="Binary of envoyproxy/ratelimit to compare with, or go to build it.")
    ] = None,
    deep: Annotated[bool, typer.Option(help="Also with up to a million accounts, and memory.")] = False,
    store: Annotated[
        str | None,
        typer.Option(help="flush, jobs: URL of an empty database, sqlite, or postgres for one of the wheel. [sqlite]"),
    ] = None,
    subscriptions: Annotated[int, typer.Option(help="jobs: How many are due at once.")] = 100_000,
    grants: Annotated[int, typer.Option(help="jobs: How many end at once, and then as many holds.")] = 100_000,
    out: Annotated[Path, typer.Option(help="Folder for the JSON file.")] = Path("bench-results"),
    as_json: Json = False,
) -> None:
    """Measure this machine: what a request costs beside a bare echo, the flush, the jobs, or what the proxy adds."""
    try:
        from meter import bench as measure
    except ImportError:
        source = "a checkout of the repository: pip install -e '.[dev]'"
        complain(ConfigError(f"bench: it is not part of the installed package; it runs from {source}"), 2)

    if as_json and what != "requests":
        complain(ConfigError(f"bench {what}: --json is of the requests; this one writes JSON to {out}"), 2)
    try:
        if what == "flush":
            code = measure.run_flush_bench(measure.FlushBenchOptions(store=store, out=out))
        elif what == "jobs":
            code = measure.run_jobs_bench(
                measure.JobsBenchOptions(store=store, subscriptions=subscriptions, grants=grants, out=out)
            )
        elif what == "proxy":
            code = measure.run_proxy_bench(measure.ProxyBenchOptions(rounds=rounds, seconds=seconds, out=out))
        elif what == "usage":
            code = measure.run_usage_bench(measure.UsageBenchOptions(rounds=rounds, out=out))
        elif what == "requests":
            chosen = tuple(name for name in cases.split(",") if name)
            options = measure.BenchOptions(
                rounds=rounds,
                seconds=seconds,
                connections=connections,
                cases=chosen,
                ratelimit=ratelimit,
                deep=deep,
                as_json=as_json,
                out=out,
            )
            code = measure.run_bench(options)
        else:
            complain(ConfigError(f"bench: {what!r} is none of requests, flush, jobs, proxy and usage"), 2)
    except (ConfigError, measure.OptionError) as error:
        complain(error, 2)
    except MeterError as error:
        complain(error, 3)
    raise typer.Exit(code)
