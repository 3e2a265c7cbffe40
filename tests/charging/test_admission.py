"""Identity and estimate, read from headers."""

from __future__ import annotations

from decimal import Decimal

import orjson
import pytest

from meter.charging.admission import Admission, Admitted
from meter.http.rendered import Rendered

ME = (b"x-user-id", b"user-1")


def admit(*headers: tuple[bytes, bytes], admission: Admission | None = None) -> Admitted | Rendered:
    return (admission or Admission()).admit(headers)


def refusal(*headers: tuple[bytes, bytes]) -> tuple[int, str]:
    answer = admit(*headers)
    assert isinstance(answer, Rendered)
    body = orjson.loads(answer.body)
    assert answer.content_type == b"application/problem+json"
    assert body["detail"] and body["status"] == answer.status
    return answer.status, body["code"]


def test_without_an_estimate_the_default_is_taken() -> None:
    assert admit(ME) == Admitted("user-1", 100)
    assert admit(ME, admission=Admission(default_estimate=0)) == Admitted("user-1", 0)


@pytest.mark.parametrize(("text", "estimate"), [(b"7", 7), (b"12.5", Decimal("12.5")), (b"1e3", Decimal(1000))])
def test_an_estimate_is_a_json_number(text: bytes, estimate: object) -> None:
    assert admit(ME, (b"x-estimated-tokens", text)) == Admitted("user-1", estimate)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [b"0", b"0.001", b"-0"])
def test_a_client_cannot_ask_for_an_empty_hold(text: bytes) -> None:
    assert admit(ME, (b"x-estimated-tokens", text)) == Admitted("user-1", 1)


@pytest.mark.parametrize(
    "text", [b"", b"-1", b"abc", b"1,000", b"0x10", b"NaN", b"Infinity", b"1e400", b"+5", b"9" * 17]
)
def test_another_estimate_is_refused(text: bytes) -> None:
    assert refusal(ME, (b"x-estimated-tokens", text)) == (400, "INVALID_ESTIMATE")


def test_two_estimates_are_refused() -> None:
    assert refusal(ME, (b"x-estimated-tokens", b"1"), (b"x-estimated-tokens", b"1")) == (400, "INVALID_ESTIMATE")


@pytest.mark.parametrize("headers", [(), ((b"x-user-id", b""),)])
def test_without_an_identity_it_is_401(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    assert refusal(*headers) == (401, "MISSING_IDENTITY")


@pytest.mark.parametrize("user", [b"a b", b"{x}", b"\xe9", b"a" * 129, b"x\t"])
def test_an_identity_that_nobody_can_have_is_400(user: bytes) -> None:
    assert refusal((b"x-user-id", user)) == (400, "INVALID_ID")


def test_two_identities_are_refused() -> None:
    assert refusal(ME, (b"x-user-id", b"user-2")) == (400, "INVALID_ID")


@pytest.mark.parametrize("name", [b"x_user_id", b"x_estimated_tokens"])
def test_a_spelling_with_underscores_is_refused(name: bytes) -> None:
    assert refusal(ME, (name, b"1")) == (400, "INVALID_ID")


@pytest.mark.parametrize(
    ("sent", "kept"), [(b"req-1", "req-1"), (b"", None), (b"a b", None), (b"\xe9", None), (b"x" * 129, None)]
)
def test_the_request_id_is_kept_if_it_is_visible(sent: bytes, kept: str | None) -> None:
    assert admit(ME, (b"x-request-id", sent)) == Admitted("user-1", 100, kept)


def test_the_headers_can_have_other_names() -> None:
    admission = Admission(user_id_header="X-Account", estimate_header="X-Cost")

    assert admit((b"x-account", b"a"), (b"x-cost", b"3"), admission=admission) == Admitted("a", 3)
