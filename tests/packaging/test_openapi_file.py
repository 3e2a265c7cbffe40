"""The OpenAPI document that is committed is the one that is served."""

from __future__ import annotations

from tests.openapi_file import PLACE, text


def test_the_committed_document_is_that_of_the_table_of_calls() -> None:
    """`python -m tests.openapi_file` makes it anew; its diff is the change of the API."""
    assert PLACE.read_text() == text()
