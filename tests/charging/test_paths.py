"""Which paths are metered: by every reading that a server might have of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meter.charging.paths import MeteredPaths

API = MeteredPaths("/api", ("/api/health",))


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/chat", "/api/chat/", "/api/healthy", "/api/health2/x"])
def test_everything_at_and_below_the_prefix_is_metered(path: str) -> None:
    assert API.cover(path)


@pytest.mark.parametrize("path", ["/", "/apiary", "/ap", "/credits/balance/u", "/public/api", "", "*"])
def test_nothing_else_is(path: str) -> None:
    assert not API.cover(path)


@pytest.mark.parametrize("path", ["/api/health", "/api/health/", "/api/health/deep"])
def test_skipped_paths_are_not(path: str) -> None:
    assert not API.cover(path)


@pytest.mark.parametrize(
    "path",
    [
        "//api/chat",
        "/./api/chat",
        "/public/../api/chat",
        "/API/chat",
        "/Api/chat",
        "/%61pi/chat",
        "/%2561pi/chat",
        "/%252561pi/chat",
        "/%25252561pi/chat",
        "/public/%2e%2e/api/chat",
        "/public/..%2fapi/chat",
        "/public/..;/api/chat",
        "/api;v=1/chat",
        "\\api\\chat",
        "/public\\..\\api\\chat",
        "/api/../public",
        "/api/..",
        "/../api/chat",
        "/api\0/chat",
        "/api%00/chat",
        "/api%2500/chat",
        "/api\t/chat",
        "/api\x7f/chat",
        "/\ufffd\ufffdapi/chat",
        "/api\ufffd\ufffdchat",
        "/%c1%a1pi/chat",
        "/api%c0%afchat",
        "/api?/chat",
        "/api%3f/chat",
        "/api#/chat",
        "/api%23x",
        "/api./chat",
        "/api%20/chat",
        "/api..;x/chat",
        "/\uff41\uff50\uff49/chat",
        "\uff0fapi\uff0fchat",
        "/ap\u0131/chat",
        "/public/%20" + "x" * 4096,
        "/api;%2f/chat",
        "/api%3bv=1/chat",
    ],
)
def test_x17_a_spelling_does_not_lead_past_the_prefix(path: str) -> None:
    assert API.cover(path)


@pytest.mark.parametrize(
    "path",
    [
        "/api/health/../chat",
        "/api/health/%2e%2e/chat",
        "/api/health/..%2fchat",
        "/api/health/..;/chat",
        "/api/health\\..\\chat",
        "/api/health;/../chat",
        "/API/health",
        "/api//health/../chat",
        "/api/health\0/../chat",
        "/api/health%00",
        "/api/health\ufffd",
        "/api/health?/../../chat",
        "/api/health/..%c0%afchat",
    ],
)
def test_a_spelling_does_not_lead_into_a_skipped_path(path: str) -> None:
    assert API.cover(path)


@pytest.mark.parametrize(
    "path",
    ["/public/a;b=1", "/public/100%", "/Public/x", "/public//x", "/public/.hidden", "/public/\u00e9", "/public/a.b/c."],
)
def test_an_unusual_path_elsewhere_stays_free(path: str) -> None:
    assert not API.cover(path)


@pytest.mark.parametrize("prefix", ["", "/"])
def test_the_empty_prefix_is_everything(prefix: str) -> None:
    paths = MeteredPaths(prefix, ("/health",))

    assert paths.cover("/") and paths.cover("/x") and paths.cover("")
    assert not paths.cover("/health")


@pytest.mark.parametrize(("prefix", "path"), [("/api/", "/api/x"), ("/api/", "/api"), ("/API", "/api/x")])
def test_the_spelling_of_the_prefix_does_not_matter(prefix: str, path: str) -> None:
    assert MeteredPaths(prefix).cover(path)


def test_a_mounted_application_is_met_by_either_of_its_paths() -> None:
    assert API.cover("/v1/api/chat", root_path="/v1")
    assert API.cover("/api/chat", root_path="/api")
    assert not API.cover("/v1/api/health", root_path="/v1")
    assert not API.cover("/v1/public", root_path="/v1")


@pytest.mark.parametrize("path", ["api", "*", "http://x/api"])
def test_a_path_without_its_slash_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="starts with a slash"):
        MeteredPaths(path)
    with pytest.raises(ValueError, match="starts with a slash"):
        MeteredPaths("/api", (path,))


@given(
    st.lists(
        st.sampled_from(["/", "..", ".", "%2e", "%2f", "%25", "%00", "?", " ", "\uff0f", "api", "API", ";", "\\", "x"]),
        max_size=8,
    )
)
def test_what_starts_below_the_prefix_is_metered_whatever_follows(parts: list[str]) -> None:
    assert MeteredPaths("/api").cover("/api/" + "".join(parts))
