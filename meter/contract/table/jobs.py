"""The calls that do by hand what the worker does by itself, a page at a time; each path ends in the name of a job.

They take no Idempotency-Key: done twice they do nothing twice.
"""

from __future__ import annotations

from pydantic import BaseModel

from meter.contract import jobs
from meter.contract.call import Call, Example

TAG = "jobs"


def _job(name: str, job: str, summary: str, answer: type[BaseModel], count: str, done: int = 0) -> Call:
    return Call(name, "POST", f"/jobs/{job}", summary, TAG, answer, Example({count: done, "more": False}))


CALLS = (
    _job("expire", "expire", "End credits and holds that are due", jobs.Expired, "transactions"),
    _job("allocate", "allocate", "Grant what is due", jobs.Allocated, "allocated"),
    _job("apply_pending", "pending", "Apply grants that are durable and not yet in Redis", jobs.Applied, "applied"),
    _job("remind", "remind", "Make the alerts of credits that end soon", jobs.Reminded, "reminded"),
    _job("deliver", "deliver", "Deliver alerts that are due", jobs.Attempted, "attempted"),
    _job("roll_up", "rollup", "Count what the usage figures do not have yet", jobs.RolledUp, "counted"),
    _job("warn", "runway", "Make the alerts of credits that run out soon", jobs.Warned, "warned"),
    _job("buy", "top_up", "Carry out requests to buy credits that are due", jobs.CarriedOut, "carried_out"),
    _job("rotate", "rotate", "Let Redis forget what is older than the idempotency window", jobs.Rotated, "rotated"),
)
