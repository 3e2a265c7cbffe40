"""Replays a trace of real requests against a sidecar, and checks that not a credit is lost or made."""

from __future__ import annotations

from meter.replay.command import run_replay, run_verify
from meter.replay.driver import replay, verify
from meter.replay.options import URL_DEFAULT, OptionError, ReplayOptions, parse_credit, parse_estimate, parse_speed
from meter.replay.report import ReplayReport, print_report
from meter.replay.trace import TraceError, TraceRow, read_trace

__all__ = [
    "URL_DEFAULT",
    "OptionError",
    "ReplayOptions",
    "ReplayReport",
    "TraceError",
    "TraceRow",
    "parse_credit",
    "parse_estimate",
    "parse_speed",
    "print_report",
    "read_trace",
    "replay",
    "run_replay",
    "run_verify",
    "verify",
]
