"""The call that takes the name of a user out of everything (meter/ledger/anonymise.py)."""

from __future__ import annotations

from meter.api.services import Services, path_user
from meter.contract.answers import Anonymised, Anonymising
from meter.engine.operations import Asked
from meter.http.exchange import Request
from meter.http.reading import read_actor
from meter.http.rendered import Rendered, answer, problem
from meter.ledger.anonymise import Anonymiser, Left


class AnonymisationHandler:
    """It takes no Idempotency-Key, which might name the user: done twice it does nothing twice."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._scale = services.scale

    async def anonymise(self, request: Request) -> Rendered:
        """`POST /credits/users/{user_id}/anonymise`"""
        user_id, actor = path_user(request), read_actor(request)
        asked = Asked(actor="" if user_id.casefold() in actor.casefold() else actor)
        store = self._services.catalog("anonymisations")
        found = await Anonymiser(self._services.engine, self._services.redis, store).run(user_id, asked.row)
        match found.state:
            case "anonymised":
                return answer(200, Anonymised(user_id=user_id, state=found.state))
            case "pending":
                return answer(202, Anonymising(user_id=user_id, state=found.state))
            case "unknown":
                return problem("user-not-found", "Nothing here has that name.")
            case "busy":
                return problem("busy", "Credits of the user are on their way; try again.")
            case "subscribed":
                return problem("account-in-use", "The user has a subscription: end it with DELETE first.")
            case "live":
                return problem("account-in-use", self._what_is_left(found.left))

    def _what_is_left(self, left: Left) -> str:
        told = []
        if left.reservations:
            told.append(f"{left.reservations} open reservations: commit or release them")
        if left.credits:
            told.append(f"{self._scale.text(left.credits)} credits, available or scheduled: void the grants")
        if left.debt:
            told.append(f"a debt of {self._scale.text(left.debt)}: add as much to write it off")
        return f"The account has {'; '.join(told)}. Then ask again."
