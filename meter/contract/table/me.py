"""What users may ask about themselves, by their own API keys."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel

from meter.contract import answers, keys, me, reports, requests
from meter.contract.call import ME, OF_AN_API_KEY, Call, Example, JsonObject
from meter.contract.table.keys import USED
from meter.contract.table.story import END, USER_2, balances

TAG = "me"
_NOTHING: JsonObject = {"items": [], "next_cursor": None}
_REFUSES = ("missing-identity", "invalid-id", "rate-limited", *OF_AN_API_KEY)


def _mine(
    path: str,
    summary: str,
    answer: type[BaseModel],
    example: JsonObject,
    query: type[BaseModel] | None = None,
    asked: Mapping[str, str] | None = None,
    *,
    exports: bool = False,
) -> Call:
    told = Example(example, query=asked or {})
    name = f"my_{path}"
    return Call(
        name, "GET", f"/{path}", summary, TAG, answer, told, query=query, prefix=ME, refuses=_REFUSES, exports=exports
    )


CALLS = (
    _mine(
        "balance",
        "Read one's own balance, now or at a past time",
        answers.Balance,
        {**USER_2, **balances(1000, 0)},
        requests.BalanceQuery,
    ),
    _mine(
        "history",
        "List one's own transactions",
        answers.TransactionPage,
        _NOTHING,
        requests.HistoryQuery,
        {"kind": "void"},
        exports=True,
    ),
    _mine(
        "usage",
        "Sum up what one spent",
        reports.UsageAnswer,
        {**_NOTHING, "is_complete": True},
        me.MyUsageQuery,
        {"from": END},
        exports=True,
    ),
    _mine(
        "keys",
        "List the API keys of one's own path",
        keys.KeyPage,
        {"items": [USED], "next_cursor": None},
        requests.Query,
    ),
)
