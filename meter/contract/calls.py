"""The HTTP API as data: one row per call, in the order of the OpenAPI document."""

from __future__ import annotations

from meter.contract.table.accounts import CALLS as OF_ACCOUNTS
from meter.contract.table.clock import CALLS as OF_THE_CLOCK
from meter.contract.table.codes import CALLS as OF_CODES
from meter.contract.table.credits import CALLS as OF_CREDITS
from meter.contract.table.grants import CALLS as OF_GRANTS
from meter.contract.table.jobs import CALLS as OF_JOBS
from meter.contract.table.keys import CALLS as OF_KEYS
from meter.contract.table.me import CALLS as OF_ONESELF
from meter.contract.table.notifications import CALLS as OF_NOTIFICATIONS
from meter.contract.table.plans import CALLS as OF_PLANS
from meter.contract.table.rates import CALLS as OF_RATES
from meter.contract.table.reports import CALLS as OF_REPORTS
from meter.contract.table.reservations import CALLS as OF_RESERVATIONS
from meter.contract.table.search import CALLS as OF_SEARCH
from meter.contract.table.system import CALLS as OF_THE_SYSTEM
from meter.contract.table.top_ups import CALLS as OF_TOP_UPS

CALLS = (
    *OF_CREDITS,
    *OF_RESERVATIONS,
    *OF_GRANTS,
    *OF_ACCOUNTS,
    *OF_TOP_UPS,
    *OF_KEYS,
    *OF_ONESELF,
    *OF_CODES,
    *OF_RATES,
    *OF_REPORTS,
    *OF_SEARCH,
    *OF_PLANS,
    *OF_JOBS,
    *OF_NOTIFICATIONS,
    *OF_THE_SYSTEM,
    *OF_THE_CLOCK,
)

BY_NAME = {call.name: call for call in CALLS}
