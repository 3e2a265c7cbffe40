"""What every handler of the API works with, and what they read alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from meter.amount import AmountScale
from meter.api.attempts import KeyAttempts
from meter.api.plain_bodies import PlainBodies, PlainCommit, PlainDeduct, PlainReserve
from meter.api.refusals import DETAILS
from meter.api.rendering import Renderer
from meter.api_key import ApiKey, read_api_key, unknown_api_key
from meter.config import Settings
from meter.contract.requests import CommitRequest, Costing, Described, Spending
from meter.engine import operations
from meter.engine.answers import NAME
from meter.engine.batcher import LineDone
from meter.engine.engine import Engine
from meter.engine.operations import Asked, Operation
from meter.engine.presented import Presented, PresentedOperation
from meter.engine.prices import usage_text
from meter.engine.redis import RedisGateway
from meter.engine.restrictions import tags_text
from meter.errors import MeterError, PartitionRefused, StoreUnavailable
from meter.health.watch import Watch
from meter.http.exchange import Caller, Request, Respond
from meter.http.reading import failure, read_actor
from meter.http.rendered import Answered, Rendered, problem, validation_problem
from meter.http.request_id import brought_id
from meter.jobs import Jobs
from meter.keys import OBJECT_ID, OUR_RESERVATION_ID, USER_ID
from meter.ledger.lists import Lists
from meter.ledger.refusals import Refusals
from meter.ledger.tail import Tail
from meter.store.base import Store

Plain = PlainDeduct | PlainReserve | PlainCommit

INVALID_KEY = problem("invalid-key", DETAILS["invalid-key"])


@dataclass(frozen=True, slots=True)
class Services:
    """What handlers work with."""

    engine: Engine
    redis: RedisGateway
    store: Store | None
    settings: Settings
    scale: AmountScale
    renderer: Renderer
    plain_bodies: PlainBodies
    jobs: Jobs
    watch: Watch
    attempts: KeyAttempts
    refusals: Refusals | None = None

    def ask(self, user_id: str, operation: Operation, respond: Respond, caller: Caller | None = None) -> None:
        """Runs an operation on a user's account and responds with its answer. Raises `Overloaded`."""
        if caller is not None:
            operation = asked_by(caller, operation, user_id)
        self.engine.submit(user_id, operation, self._answering(operation[NAME], respond))

    def ask_by_key(self, text: str, operation_of: Callable[[str], Operation], respond: Respond) -> None:
        """The same for the path that an API key names, which is judged in the same call."""

        def ask(owner: str, presented: Presented) -> None:
            self.ask(owner, PresentedOperation.of(operation_of(owner), presented), respond)

        self.find_payer(text, ask, lambda error: respond(failure(error)))

    def find_payer(
        self, text: str, found: Callable[[str, Presented], None], failed: Callable[[Exception], object]
    ) -> None:
        """Tells the path that an API key names, and what the script judges it by; or why it cannot. Raises `Answered`,
        and `Overloaded`.
        """
        key = self.read_key(text)

        def heard(owner: str | MeterError | None) -> None:
            try:
                if isinstance(owner, MeterError):
                    raise owner
                if owner is None:
                    raise Answered(INVALID_KEY)
                found(owner, Presented(key))
            except Exception as error:  # every way out is an answer
                failed(error)

        self.engine.find_owner(key, heard)

    async def payer_of(self, text: str) -> tuple[str, Presented]:
        """The path that an API key names, and what the script judges it by. Raises `Answered` where there is none."""
        key = self.read_key(text)
        owner = await self.engine.owner_of(key)
        if owner is None:
            raise Answered(INVALID_KEY)
        return owner, Presented(key)

    def read_key(self, text: str) -> ApiKey:
        """An API key that may be one of this deployment. Raises `Answered`."""
        key = read_api_key(text)
        if key is None:
            raise Answered(INVALID_KEY)
        return key

    def any_key(self, text: str) -> ApiKey:
        """The same where the script is to refuse what cannot be one."""
        return read_api_key(text) or unknown_api_key(text)

    def ask_of_reservation(
        self, reservation_id: str, operation: Operation, respond: Respond, caller: Caller | None = None
    ) -> None:
        """The same for an operation that names a reservation."""
        if caller is not None:
            operation = asked_by(caller, operation)
        self.engine.submit_for_reservation(reservation_id, operation, self._answering(operation[NAME], respond))

    def _answering(self, name: str, respond: Respond) -> LineDone:
        render = self.renderer.render
        return lambda line: respond(failure(line) if isinstance(line, MeterError) else render(name, line))

    def catalog(self, what: str) -> Store:
        """The store that calls about `what` need. Raises `StoreUnavailable`, and `PartitionRefused` for a foreign one:
        what is written there would be nobody's.
        """
        if self.store is None:
            raise StoreUnavailable(f"{what} need a store; METER_STORE_URL is none")
        if why := self.engine.opening.foreign:
            raise PartitionRefused("ledger", why)
        return self.store

    async def now_ms(self, user_id: str) -> int:
        """The time that a user's partition sees. Raises `Unavailable` where that is not served."""
        return await self.engine.now_ms(self.engine.partition_of(user_id))


def asked_of(body: Described | Plain, key: str, request: Request, *, begins: bool = False) -> Asked:
    """The key and the ledger members of a request, and who asks. Where it `begins` something, and does not settle what
    has a name already, its own id is the reference that its body does not give.
    """
    says_nothing = body.description is None and body.metadata is None and body.reference is None
    tags = tags_of(body)
    if request.bare and says_nothing and not (key or tags):
        return operations.UNKEYED
    request_id, actor = brought_id(request.headers) if begins else "", read_actor(request)
    if says_nothing:
        return Asked(key, "", request_id, actor, tags) if key or request_id or actor or tags else operations.UNKEYED
    return Asked(key, operations.members(body.description, body.metadata, body.reference), request_id, actor, tags)


def tags_of(body: Described | Plain) -> str:
    """What a body says that it is for, as text."""
    return tags_text(body.tags) if isinstance(body, Spending) and body.tags else ""


def usage_of(body: Costing | CommitRequest | Plain) -> str:
    """The usage of a body that says one, as the scripts read it."""
    usage = body.usage
    return "" if usage is None else usage_text(usage.model, usage.quantities, usage.max_output, usage.aliases)


def asked_by(caller: Caller, operation: Operation, user_id: str | None = None) -> Operation:
    """The operation of a caller; of a user's key it is judged by the script once more. Raises `Answered` where it is on
    another user's account.
    """
    if caller.user_id is None:
        return operation
    if user_id is not None and user_id != caller.user_id:
        raise Answered(problem("invalid-id", "The API key is not that of the user who is named beside it."))
    return PresentedOperation.of(operation, Presented(caller.key))


def user_of(body: Spending | PlainDeduct | PlainReserve) -> str:
    """Who pays, of a body that names no API key. Raises `Answered` where it names nobody."""
    if body.user_id is None:
        raise Answered(validation_problem([("/user_id", "name either user_id or api_key")]))
    return body.user_id


def path_user(request: Request) -> str:
    """The user_id of the path. Raises `Answered`."""
    user_id = request.path["user_id"]
    if not USER_ID.fullmatch(user_id):
        raise Answered(validation_problem([("/user_id", "must be 1 to 128 of A-Z a-z 0-9 . _ : @ / -")]))
    return user_id


def path_id(request: Request, name: str) -> str:
    """An id of the path; one that cannot exist is not found. Raises `Answered`."""
    value = request.path[name]
    if request.caller is not None and name == "reservation_id":
        value = own_reservation_id(request.caller, value)
    if not OBJECT_ID.fullmatch(value):
        slug = "grant-not-found" if name == "grant_id" else "reservation-not-found"
        raise Answered(problem(slug, "No such id: ids are 1 to 128 of A-Z a-z 0-9 . _ : -"))
    return value


def own_reservation_id(caller: Caller, reservation_id: str) -> str:
    """A reservation_id as it is known here: one that a user's key chose is its root's."""
    return reservation_id if OUR_RESERVATION_ID.fullmatch(reservation_id) else caller.own(reservation_id)


def unanswered(line: str | MeterError) -> Rendered | None:
    """The answer where an operation got none."""
    return failure(line) if isinstance(line, MeterError) else None


def lists_of(services: Services) -> Lists | None:
    """The lists that need a store, where there is one."""
    if services.store is None:
        return None
    return Lists(Tail(services.engine, services.redis, services.store), services.store)
