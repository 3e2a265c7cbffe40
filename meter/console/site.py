"""Who may see the console, and which page a request gets.

Every page is behind `_Door`: with `METER_AUTH=keys` a login by an operator's key, without it this machine alone. What
changes anything is posted by a form of ours, which the token in it and what browsers say of where it came from prove.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from meter.api.carried import InProcess
from meter.api.gate import ADMIN_READ, Gate
from meter.api_key import ApiKey, read_api_key
from meter.client.credits import Credits
from meter.config import Settings
from meter.console import answering, pages
from meter.console.answering import elsewhere, notice, shown
from meter.console.logins import FAILURES_MAX, WHOLE_MS, Failures, Logins, new_secret, token_of
from meter.console.visit import ROOT, Visit, link
from meter.engine.redis import RedisGateway
from meter.errors import MeterError
from meter.http.exchange import Coroutine
from meter.http.request_id import new_request_id
from meter.log import current_request_id, logger

FORM_MAX_BYTES, FORM_FIELDS_MAX = 65_536, 200
_COOKIE, _SECURE_COOKIE = "meter", "__Host-meter"
_THEME = "meter-theme"
_PROXIES = ("x-forwarded-for", "forwarded", "via", "x-real-ip")
_NAMES = ("localhost",)

Page = Callable[[Visit], Awaitable[Response]]
_log = logger("meter.console")


@dataclass(frozen=True, slots=True)
class Site:
    """The console of one sidecar. `coroutines` are the public calls, behind the gate where there is one; `now_ms` is
    the time that scripts see.
    """

    settings: Settings
    coroutines: Mapping[str, Coroutine]
    gate: Gate | None
    logins: Logins
    failures: Failures
    now_ms: Callable[[], Awaitable[int]]

    def routes(self) -> list[BaseRoute]:
        """Every path of the console."""
        return [
            Route(f"{ROOT}/static/{{name}}", answering.static, methods=["GET"]),
            Route(f"{ROOT}/login", self._login_page, methods=["GET"]),
            Route(f"{ROOT}/login", self._login, methods=["POST"]),
            Route(f"{ROOT}/logout", self._behind(self._logout), methods=["POST"]),
            Route(f"{ROOT}/theme", self._behind(_choose_theme), methods=["POST"]),
            *(Route(path, self._behind(page), methods=["GET"]) for path, page in pages.SHOWN.items()),
            *(Route(path, self._behind(page), methods=["POST"]) for path, page in pages.POSTED.items()),
            Route(f"{ROOT}/{{rest:path}}", self._behind(_nothing_here), methods=["GET"]),
        ]

    def _behind(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def served(request: Request) -> Response:
            try:
                return await self._serve(request, page)
            except MeterError as error:
                text = f"{error}. Nothing of this page is known without it; what you sent last may not have been done."
                return notice(503, "The console has no answer", text)
            except Exception as error:  # every way out is a page
                fault_id = current_request_id() or new_request_id()
                _log.error("internal error", request_id=fault_id, exc_info=error)
                return notice(500, "This page failed", f"The log has the cause under {fault_id}.")

        return served

    async def _serve(self, request: Request, page: Page) -> Response:
        visit = await self._visit(request)
        if isinstance(visit, Response):
            return visit
        if request.method == "POST":
            form = await _form(request)
            if form is None or not _is_ours(request, form, visit.token):
                text = "The form is not one of this login, or it was sent from elsewhere. Open the page again."
                return notice(403, "This form cannot be taken", text, visit)
            visit = replace(visit, form=form)
        found = await page(visit)
        if _cookie_of(request) is None and self.gate is None:
            _set(request, found, _name_of(request), visit.cookie, WHOLE_MS // 1000)
        if visit.told:
            found.delete_cookie(answering.TOLD, path=ROOT)
        return found

    async def _visit(self, request: Request) -> Visit | Response:
        """Who asks, or the answer to one who may not."""
        cookie, key, scopes = _cookie_of(request), None, None
        if self.gate is None:
            if not _is_of_this_machine(request):
                text = (
                    "Without METER_AUTH=keys the console is for this machine alone. Set it, make an operator's key "
                    "with `meter keys create --admin`, and log in with that."
                )
                return notice(403, "The console is closed here", text)
            cookie = cookie or new_secret()
        else:
            key = None if cookie is None else await self.logins.find(cookie, _now_ms())
            scopes = frozenset() if key is None else await self.gate.scopes_of(key)
            if cookie is None or not scopes:
                asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return elsewhere(link("login", next=asked if request.method == "GET" else None))
            if ADMIN_READ not in scopes:
                return notice(403, "This key may not see the console", "It needs the scope `admin:read`.")
        return await self._visit_of(request, cookie, key, scopes)

    async def _visit_of(
        self, request: Request, cookie: str, key: ApiKey | None, scopes: frozenset[str] | None
    ) -> Visit:
        calls = InProcess(self.coroutines, key)
        credits_ = Credits(calls)
        visit = Visit(
            path=request.url.path,
            credits=credits_ if key is not None else credits_.by("console"),
            token=token_of(cookie),
            now=await self._now(),
            decimal_places=self.settings.decimal_places,
            key_id="" if key is None else key.key_id,
            theme=request.cookies.get(_THEME, ""),
            told=answering.told(request.cookies.get(answering.TOLD, ""), token_of(cookie)),
            query=dict(request.query_params),
            cookie=cookie,
            exported=calls.exported,
        )
        return visit if scopes is None else replace(visit, scopes=scopes)

    async def _now(self) -> datetime:
        try:
            now_ms = await self.now_ms()
        except MeterError:  # Redis is away: panels say so, each for itself
            now_ms = _now_ms()
        return datetime.fromtimestamp(now_ms / 1000, UTC)

    async def _login_page(self, request: Request) -> Response:
        if self.gate is None:
            return elsewhere(ROOT)
        return shown("login.html", None, fault="", next=request.query_params.get("next", ""))

    async def _login(self, request: Request) -> Response:
        form = await _form(request)
        if self.gate is None or form is None or not _is_same_origin(request):
            return notice(403, "This form cannot be taken", "It was sent from elsewhere. Open the console again.")
        address = request.client.host if request.client else ""
        if self.failures.are_many(address):
            fault = f"{FAILURES_MAX} wrong keys within a minute. Wait a minute, then try again."
            found = shown("login.html", None, 429, fault=fault, next=form.get("next", ""))
            found.headers["retry-after"] = "60"
            return found
        key = read_api_key(form.get("key", "").strip())
        try:
            scopes = frozenset() if key is None else await self.gate.scopes_of(key)
            if key is None or ADMIN_READ not in scopes:
                self.failures.count(address)
                fault = "This is no operator's key that works here: it begins with mk_ and has the scope admin:read."
                return shown("login.html", None, 403, fault=fault, next=form.get("next", ""))
            cookie = await self.logins.begin(key, _now_ms())
        except MeterError as error:
            return shown("login.html", None, 503, fault=f"{error}.", next=form.get("next", ""))
        _log.info("logged in to the console", key_id=key.key_id)
        found = elsewhere(_inside(form.get("next", "")))
        _set(request, found, _name_of(request), cookie, WHOLE_MS // 1000)
        return found

    async def _logout(self, visit: Visit) -> Response:
        if self.gate is not None:
            await self.logins.end(visit.cookie)
        found = elsewhere(link("login"))
        for name, is_secure in ((_COOKIE, False), (_SECURE_COOKIE, True)):
            found.delete_cookie(name, path="/", secure=is_secure, httponly=True, samesite="strict")
        return found


def site_of(
    settings: Settings,
    coroutines: Mapping[str, Coroutine],
    gate: Gate | None,
    redis: RedisGateway,
    now_ms: Callable[[], Awaitable[int]],
) -> Site:
    """The console on the parts of a sidecar."""
    return Site(settings, coroutines, gate, Logins(redis, settings.key_prefix), Failures(_now_ms), now_ms)


async def _choose_theme(visit: Visit) -> Response:
    theme = visit.form.get("theme", "")
    found = elsewhere(_inside(visit.form.get("back", "")))
    if theme in ("light", "dark"):
        found.set_cookie(_THEME, theme, 365 * 86_400, path=ROOT, samesite="strict", httponly=True)
    else:
        found.delete_cookie(_THEME, path=ROOT)
    return found


async def _nothing_here(visit: Visit) -> Response:
    return notice(404, "There is nothing here", "The console has no page of that name.", visit)


async def _form(request: Request) -> Mapping[str, str] | None:
    """The fields of a form; None of what is none, or too large."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return None
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > FORM_MAX_BYTES:
            return None
        chunks.append(chunk)
    try:
        pairs = parse_qsl(
            b"".join(chunks).decode(), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS_MAX
        )
    except ValueError:
        return None
    return dict(pairs)


def _is_ours(request: Request, form: Mapping[str, str], token: str) -> bool:
    brought = request.headers.get("x-csrf-token") or form.get("token", "")
    return _is_same_origin(request) and secrets.compare_digest(brought.encode(), token.encode())


def _is_same_origin(request: Request) -> bool:
    """Browsers say where a form was on, and no page can make them say anything else."""
    return request.headers.get("sec-fetch-site") == "same-origin"


def _is_of_this_machine(request: Request) -> bool:
    """Whether nobody else can have sent it: from loopback, to a name of loopback, and through no proxy."""
    if any(name in request.headers for name in _PROXIES):
        return False
    client = request.client.host if request.client else ""
    return _is_loopback(client) and _is_loopback(request.url.hostname or "")


def _is_loopback(name: str) -> bool:
    try:
        return name in _NAMES or ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _name_of(request: Request) -> str:
    """Browsers take `__Host-` cookies over TLS alone; over http only loopback is served without it."""
    return _COOKIE if request.url.scheme == "http" and _is_loopback(request.url.hostname or "") else _SECURE_COOKIE


def _cookie_of(request: Request) -> str | None:
    return request.cookies.get(_name_of(request)) or None


def _set(request: Request, found: Response, name: str, value: str, seconds: int) -> None:
    is_secure = _name_of(request) == _SECURE_COOKIE
    found.set_cookie(name, value, seconds, path="/", secure=is_secure, httponly=True, samesite="strict")


def _inside(address: str) -> str:
    """Where to go next: a page of the console, never another site."""
    path = address.partition("?")[0]
    is_page = path == ROOT or path.startswith(f"{ROOT}/")
    return address if is_page and not set(address) & set("\\\r\n") and "//" not in path else ROOT


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
