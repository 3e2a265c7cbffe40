"""wrk as the load generator: a Lua script made from the load, and its last line read back."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from meter.bench.samples import PERCENTILES, Sample
from meter.bench.traffic import USER_DIGITS, Load

MARK = "METER "
PAIR_DISTANCE = 4
"""A reservation is committed this many times the connections later, because another connection may do it."""

PREPARED = 2000
"""Requests made before the load starts, drawn from by lot afterwards, where none has an id of its own."""

_SCRIPT = """
local templates, users, run, pairs_apart = {templates}, {users}, "{run}", {apart}
local threads, seed = 0, 0
function setup(thread) thread:set("seed", threads); threads = threads + 1 end
local sent, reserved, prepared = 0, 0, {{}}
local function filled(text, id)
  text = text:gsub("%%U", function() return string.format("u%0{digits}d", math.random(0, users - 1)) end)
  return (text:gsub("%%R", function() return run .. "-" .. seed .. "-" .. id end))
end
local function made(which, id)
  local t, headers = templates[which], {{}}
  for name, value in pairs(t[4]) do headers[name] = filled(value, id) end
  return wrk.format(t[1], filled(t[2], id), headers, t[3] ~= "" and filled(t[3], id) or nil)
end
function init()
  math.randomseed(os.time() * 100 + seed)
  for n = 1, {prepared} do prepared[n] = made(1, 0) end
end
function request()
  if #prepared > 0 then return prepared[math.random(#prepared)] end
  local which, id = 1, reserved
  if #templates == 2 then
    if sent % 2 == 1 and reserved > pairs_apart + 1 then which, id = 2, reserved - pairs_apart
    else reserved = reserved + 1; id = reserved end
  end
  sent = sent + 1
  return made(which, id)
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('{mark}{{"requests":%d,"status":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,'
    .. '"microseconds":%d,"latency_us":[{formats}]}}\\n', summary.requests, e.status, e.connect, e.read, e.write,
    e.timeout, summary.duration, {percentiles}))
end
"""


class WrkFailed(Exception):
    """wrk did not say what was expected; the message has what it said."""


def wrk_path() -> str | None:
    """wrk, when it is on PATH."""
    return shutil.which("wrk")


def script_of(load: Load) -> str:
    """The Lua script of a load. One thread, so that ids are drawn by one counter."""
    rows = []
    for template in load.templates:
        headers = dict(template.headers)
        if template.body:
            headers["Content-Type"] = "application/json"
        table = "{" + ",".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items()) + "}"
        rows.append(
            f"{{{json.dumps(template.method)},{json.dumps(template.path)},{json.dumps(template.body)},{table}}}"
        )
    return _SCRIPT.format(
        templates="{" + ",".join(rows) + "}",
        users=load.users,
        run=load.run,
        apart=PAIR_DISTANCE * load.connections,
        digits=USER_DIGITS,
        prepared=0 if any("%R" in template.path + template.body for template in load.templates) else PREPARED,
        mark=MARK,
        formats=",".join(["%.0f"] * len(PERCENTILES)),
        percentiles=",".join(f"latency:percentile({percent})" for percent in PERCENTILES),
    )


def run_wrk(binary: str, load: Load, folder: Path) -> Sample:
    """Runs wrk. Raises `WrkFailed`."""
    script = folder / "wrk.lua"
    script.write_text(script_of(load), encoding="utf-8")
    seconds = max(1, round(load.seconds))
    url = f"http://127.0.0.1:{load.port}"
    command = [binary, "-t1", f"-c{load.connections}", f"-d{seconds}s", "--timeout", "5s", "-s", str(script), url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)  # noqa: S603
    return parse_wrk(done.stdout + done.stderr)


def parse_wrk(text: str) -> Sample:
    """The sample in the output of `script_of`. Raises `WrkFailed`."""
    line = next((line for line in text.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise WrkFailed(text[-500:] or "wrk said nothing")
    members = json.loads(line.removeprefix(MARK))
    kinds = ("status", "connect", "read", "write", "timeout")
    return Sample(
        requests=members["requests"],
        errors=sum(members[kind] for kind in kinds),
        seconds=members["microseconds"] / 1e6,
        latency_ms=tuple(microseconds / 1000 for microseconds in members["latency_us"]),
        faults=tuple(f"{members[kind]} {kind} errors" for kind in kinds if members[kind]),
    )
