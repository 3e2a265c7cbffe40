"""Which page is where."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response

from meter.console import exports, lists, overview, webhooks
from meter.console.actions import ACTIONS, form_page, send_form
from meter.console.find import find_page
from meter.console.user import question_part, user_page
from meter.console.visit import ROOT, Visit

Page = Callable[[Visit], Awaitable[Response]]

SHOWN: Mapping[str, Page] = {
    ROOT: overview.overview_page,
    f"{ROOT}/overview": overview.overview_page,
    f"{ROOT}/find": find_page,
    f"{ROOT}/users": lists.users_page,
    f"{ROOT}/user": user_page,
    f"{ROOT}/user/question": question_part,
    **{f"{ROOT}/user/{name}": form_page for name in ACTIONS},
    f"{ROOT}/user/history.csv": exports.history_csv,
    f"{ROOT}/usage.csv": exports.usage_csv,
    f"{ROOT}/refusals": lists.refusals_page,
    f"{ROOT}/usage": lists.usage_page,
    f"{ROOT}/plans": lists.plans_page,
    f"{ROOT}/rate-cards": lists.rate_cards_page,
    f"{ROOT}/codes": lists.codes_page,
    f"{ROOT}/webhooks": webhooks.webhooks_page,
    f"{ROOT}/health": overview.health_page,
}
POSTED: Mapping[str, Page] = {
    **{f"{ROOT}/user/{name}": send_form for name in ACTIONS},
    f"{ROOT}/webhooks/test": webhooks.send,
    f"{ROOT}/webhooks/retry": webhooks.send,
}
