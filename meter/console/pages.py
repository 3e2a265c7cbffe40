"""Which page is where, and the rail beside them: a screen that is not made yet is in neither."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import Response

from meter.console.actions import ACTIONS, form_page, send_form
from meter.console.find import find_page
from meter.console.user import question_part, user_page
from meter.console.visit import ROOT, Visit

Page = Callable[[Visit], Awaitable[Response]]

SHOWN: Mapping[str, Page] = {
    ROOT: find_page,
    f"{ROOT}/find": find_page,
    f"{ROOT}/user": user_page,
    f"{ROOT}/user/question": question_part,
    **{f"{ROOT}/user/{name}": form_page for name in ACTIONS},
}
POSTED: Mapping[str, Page] = {f"{ROOT}/user/{name}": send_form for name in ACTIONS}
