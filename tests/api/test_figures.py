"""`GET /credits/usage?group_by=…`: usage figures of a path and all below it, by word, zone and page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from fakeredis import FakeServer
from starlette.testclient import TestClient

from meter import sync
from meter.contract.reports import FiguresPage
from meter.testing import app_in_step, fake_app
from tests.api.sidecar import serving
from tests.api.test_reports import get, pages, post

CARD = {"models": {"gpt": {"input": 2.5, "output": 10}, "mini": {"input": 1}}}


@pytest.fixture
def http(request: pytest.FixtureRequest) -> Iterator[TestClient]:
    """2030-10-26 21:30 UTC, which is 23:30 in Berlin, whose next day has 25 hours."""
    with TestClient(app_in_step(partitions=3, usage_bucket_minutes=getattr(request, "param", 60))) as client:
        client.put("/test-clock", json={"now": "2030-10-26T21:30:00Z"})
        client.put("/credits/rate-cards/default", json=CARD)
        for user_id in ("acme", "acme/a", "acme/b/c", "acme2", "acme-x"):
            post(client, "/add", {"user_id": user_id, "amount": 1000})
        yield client


def on(http: TestClient, now: str) -> None:
    http.put("/test-clock", json={"now": now})


def told(found: list[Any], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(one.get(name) for name in names) for one in found]


def test_a_path_and_all_below_it_by_model(http: TestClient) -> None:
    usage = {"model": "gpt", "input": 1000, "output": 320}
    post(http, "/deduct", {"user_id": "acme/a", "usage": usage})
    post(http, "/deduct", {"user_id": "acme/b/c", "amount": 3, "metadata": {"feature": "chat"}})
    post(http, "/deduct", {"user_id": "acme2", "usage": usage})
    post(http, "/deduct", {"user_id": "acme-x", "amount": 1})
    batch = [{"op": "deduct", "user_id": "acme", "usage": {"model": "mini", "input": 2}}]
    post(http, "/batch", {"operations": batch})

    by_model = pages(http, "/usage?path=acme&group_by=model,rate_card_version&limit=1")

    assert by_model == [
        {
            "model": "",
            "rate_card_version": "",
            "requests": 1,
            "charged": 3,
            "refunded": 0,
            "spent": 3,
            "quantities": {},
        },
        {
            "model": "gpt",
            "rate_card_version": "default@1",
            "requests": 1,
            "charged": 0.0057,
            "refunded": 0,
            "spent": 0.0057,
            "quantities": {"input": 1000, "output": 320},
        },
        {
            "model": "mini",
            "rate_card_version": "default@1",
            "requests": 1,
            "charged": 0.000002,
            "refunded": 0,
            "spent": 0.000002,
            "quantities": {"input": 2},
        },
    ]
    assert told(pages(http, "/usage?path=acme&group_by=feature&limit=1"), "feature", "requests") == [
        ("", 2),
        ("chat", 1),
    ]
    assert told(pages(http, "/usage?path=acme&group_by=path&limit=1"), "path") == [("acme",), ("acme/a",), ("acme/b",)]
    assert told(pages(http, "/usage?group_by=level_1&limit=1"), "level_1", "requests") == [
        ("acme", 3),
        ("acme-x", 1),
        ("acme2", 1),
    ]
    assert told(get(http, "/usage?path=acme")["items"], "requests", "charged") == [(3, 3.005702)]
    assert get(http, "/usage?path=nobody&group_by=model") == {"items": [], "next_cursor": None, "is_complete": True}
    assert get(http, "/usage?path=nobody")["items"] == []


def test_charges_by_an_api_key_are_told_apart_by_it(http: TestClient) -> None:
    """A commit counts for the key of its reserve, a refund for that of its charge."""
    made = post(http, "/keys", {"user_id": "acme"}, 201)
    key = {"api_key": made["key"]}
    charge = post(http, "/deduct", {**key, "amount": 3})
    held = post(http, "/reservations", {**key, "usage": {"model": "gpt", "input": 1000, "max_output": 1}}, 201)
    post(http, f"/reservations/{held['reservation_id']}/commit", {"usage": {"input": 400, "output": 0}})
    post(http, "/deduct", {"user_id": "acme", "amount": 5})
    post(http, "/refund", {"user_id": "acme", "transaction_id": charge["transaction_id"], "amount": 1})

    found = pages(http, "/usage?path=acme&group_by=key,model")

    assert told(found, "key", "model", "requests", "charged", "refunded") == [
        ("", "", 1, 5, 0),
        (made["key_id"], "", 1, 3, 1),
        (made["key_id"], "gpt", 1, 0.001, 0),
    ]


def test_days_of_a_zone_have_23_to_25_hours_and_refunds_count_at_their_own_time(http: TestClient) -> None:
    charge = post(http, "/deduct", {"user_id": "acme", "amount": 10})
    hours = ("2030-10-27T00:10:00Z", "2030-10-27T01:10:00Z", "2030-10-27T22:10:00Z", "2030-10-27T23:10:00Z")
    for at in hours:
        on(http, at)
        post(http, "/deduct", {"user_id": "acme", "amount": 1})
    post(http, "/refund", {"user_id": "acme", "transaction_id": charge["transaction_id"], "amount": 4})

    berlin = pages(http, "/usage?group_by=day&time_zone=Europe/Berlin&limit=1")
    utc = pages(http, "/usage?group_by=day&limit=1")
    by_hour = pages(http, "/usage?group_by=hour&time_zone=Europe/Berlin&limit=2")

    assert told(berlin, "day", "requests", "refunded", "spent") == [
        ("2030-10-26", 1, 0, 10),
        ("2030-10-27", 3, 0, 3),
        ("2030-10-28", 1, 4, -3),
    ]
    assert told(utc, "day", "requests") == [("2030-10-26", 1), ("2030-10-27", 4)]
    assert told(by_hour, "hour") == [(f"{at[:13]}:00:00.000Z",) for at in ("2030-10-26T21", *hours)]
    within = "from=2030-10-27T00:00:00%2B02:00&to=2030-10-28T00:00:00%2B01:00"
    [day] = pages(http, f"/usage?group_by=day&time_zone=Europe/Berlin&{within}")
    assert (day["day"], day["requests"]) == ("2030-10-27", 3)


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("group_by=day&time_zone=Asia/Kathmandu", "/time_zone"),
        ("group_by=hour&time_zone=Asia/Kolkata", "/time_zone"),
        ("group_by=model&from=2030-01-01T00:15:00Z", "/from"),
        ("path=acme&to=2030-01-01T00:00:00.001Z", "/to"),
        ("group_by=day&time_zone=Asia/Kathmandu&from=2030-01-01T00:00:00%2B05:45", "/from"),
    ],
)
def test_a_question_that_would_cut_a_bucket_in_two_is_told_the_setting(
    http: TestClient, query: str, pointer: str
) -> None:
    post(http, "/deduct", {"user_id": "acme", "amount": 1})

    refused = http.get(f"/credits/usage?{query}")

    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["pointer"] == pointer and "METER_USAGE_BUCKET_MINUTES" in error["detail"]


@pytest.mark.parametrize("http", [15], indirect=True)
def test_quarters_of_an_hour_have_days_of_kathmandu(http: TestClient) -> None:
    for at in ("2030-10-26T18:14:00Z", "2030-10-26T18:15:00Z"):  # 23:59 and 00:00 there
        http.put("/test-clock", json={"now": at})
    on(http, "2030-10-27T18:14:59.999Z")
    post(http, "/deduct", {"user_id": "acme", "amount": 1})
    on(http, "2030-10-27T18:15:00Z")
    post(http, "/deduct", {"user_id": "acme", "amount": 2})

    found = pages(http, "/usage?group_by=day&time_zone=Asia/Kathmandu")
    hours = pages(http, "/usage?group_by=hour&time_zone=Asia/Kathmandu&from=2030-10-28T00:00:00%2B05:45")

    assert told(found, "day", "charged") == [("2030-10-27", 1), ("2030-10-28", 2)]
    assert told(hours, "hour", "charged") == [("2030-10-27T18:15:00.000Z", 2)]


@pytest.mark.parametrize(
    "query",
    [
        *(
            "group_by=",
            "group_by=nope",
            "group_by=model,model",
            "group_by=model,day,hour,user,key",
            "group_by=model&by=user",
        ),
        *("path=acme&user_id=acme", "path=a%20b", "time_zone=Mars/Olympus", "group_by=model&metadata_member=x"),
        *("group_by=model&cursor=AAAA", "group_by=model&group_by=day", "group_by=level_7", "group_by=level_0"),
    ],
)
def test_what_is_no_question_is_refused(http: TestClient, query: str) -> None:
    assert http.get(f"/credits/usage?{query}").status_code == 422


def test_a_cursor_is_of_its_question_alone_and_goes_on_while_rows_arrive(http: TestClient) -> None:
    for n in range(6):
        post(http, "/add", {"user_id": f"u{n}", "amount": 100})
        post(http, "/deduct", {"user_id": f"u{n}", "amount": 1})
    first = get(http, "/usage?group_by=user,model&limit=3")
    assert http.get(f"/credits/usage?group_by=user,day&cursor={first['next_cursor']}").status_code == 422

    for user_id in ("u0", "u4", "u9"):
        post(http, "/add", {"user_id": user_id, "amount": 100})
        post(http, "/deduct", {"user_id": user_id, "amount": 1})
    rest = get(http, f"/usage?group_by=user,model&limit=9&cursor={first['next_cursor']}")

    assert told(first["items"] + rest["items"], "user", "requests") == [
        *(("u0", 1), ("u1", 1), ("u2", 1), ("u3", 1), ("u4", 2), ("u5", 1), ("u9", 1)),
    ]
    assert rest["next_cursor"] is None


def test_it_is_csv_and_ndjson_by_accept_digit_by_digit(http: TestClient) -> None:
    big = Decimal("9007199254.740991")
    for user_id in ("whale/1", "whale/2", "whale/3"):
        assert http.post("/credits/add", json={"user_id": user_id, "amount": str(big)}).is_success
        assert http.post("/credits/deduct", json={"user_id": user_id, "amount": str(big)}).is_success
    post(http, "/deduct", {"user_id": "acme", "usage": {"model": "gpt", "input": 7, "output": 0}})

    as_csv = http.get("/credits/usage?group_by=level_1,model", headers={"accept": "text/csv"})
    as_lines = http.get("/credits/usage?group_by=level_1,model", headers={"accept": "application/x-ndjson"})
    rows = list(csv.DictReader(io.StringIO(as_csv.text)))

    assert as_csv.headers["content-type"].startswith("text/csv")
    assert list(rows[0]) == [
        *("level_1", "model", "requests", "charged", "refunded", "spent"),
        *("input", "cache_read", "cache_write", "output", "reasoning", "audio_input", "audio_output", "images"),
        "quantities",
    ]
    assert (rows[0]["level_1"], rows[0]["input"], rows[0]["output"], rows[0]["quantities"]) == (
        *("acme", "7", "", '{"input":7}'),
    )
    assert (rows[1]["level_1"], rows[1]["charged"], rows[1]["input"]) == ("whale", str(3 * big), "")
    lines = [json.loads(line, parse_float=Decimal) for line in as_lines.text.splitlines()]
    assert [line["charged"] for line in lines] == [Decimal("0.000018"), 3 * big]


def test_the_python_api_has_them_too() -> None:
    """By way of HTTP. What is not flushed is not in them, and the answer says so: this sidecar has no worker."""
    with serving(fake_app(FakeServer(), store_url="memory://")) as url, sync.MeterClient(url) as client:
        assert client.add("acme/a", 10)
        page = client.figures("user", "day", path="acme", time_zone="Europe/Berlin")
        total = client.figures(from_=datetime(2000, 1, 1, tzinfo=UTC))
        refused = client.figures("nope")

    assert page and total and not refused
    assert (page.items, page.is_complete, total.next_cursor) == ([], False, None)
    read = FiguresPage.model_validate({"items": [{"user": "u", **SUMS}], "next_cursor": None, "is_complete": True})
    assert (read.items[0].user, read.items[0].spent, read.items[0].model) == ("u", Decimal("0.5"), None)


SUMS = {"requests": 1, "charged": Decimal("0.5"), "refunded": 0, "spent": Decimal("0.5"), "quantities": {"input": 3}}
