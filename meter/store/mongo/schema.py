"""The collections, validators and indexes of the MongoDB store, and what the deployment was made with.

No lock: every step can run twice, or in two processes at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from pymongo.errors import CollectionInvalid, OperationFailure

from meter.store.base import StoreMismatch
from meter.store.mongo.documents import Document, collections, rows_from
from meter.store.mongo.flush import Database, MongoFlush
from meter.store.plan_rows import PastPlanRow
from meter.store.rows import DeploymentRow
from meter.store.settings import check_settings

SCHEMA_REVISION = 4

_REVISION = "schema_revision"
_EXISTS = 48


async def has_transactions(database: Database) -> bool:
    """Whether the server is a replica set or a sharded cluster."""
    hello = await database.command("hello")
    return "setName" in hello or hello.get("msg") == "isdbgrid"


async def prepare(database: Database, settings: Mapping[str, str]) -> None:
    """Makes what is missing, and keeps or checks the settings. Raises `StoreMismatch`."""
    kept = await _deployment(database)
    if int(kept.get(_REVISION, "0")) > SCHEMA_REVISION:
        raise StoreMismatch(f"the store's schema is {kept[_REVISION]}, made by a newer version of meter")
    check_settings(kept, settings)
    await _upgrade(database, int(kept.get(_REVISION, SCHEMA_REVISION)))
    present = set(await database.list_collection_names())
    for name, made in collections().items():
        if name in present:
            await database.command("collMod", name, validator=made["validator"])
        else:
            await _create(database, name, made["validator"])
        for index in made["indexes"]:
            options = {key: value for key, value in index.items() if key != "key"}
            await database[name].create_index(list(index["key"].items()), **options)
    wanted = {**settings, _REVISION: str(SCHEMA_REVISION)}
    rows = [DeploymentRow(name=name, value=value) for name, value in wanted.items()]
    await MongoFlush(database, None).insert_missing(DeploymentRow, rows)
    reached = {"$set": {"value": wanted[_REVISION]}}
    await database[DeploymentRow.TABLE].update_one({"_id": _REVISION}, reached)
    check_settings(await _deployment(database), settings)  # another process may have been first


async def _upgrade(database: Database, revision: int) -> None:
    """Makes documents of an earlier revision what this code reads."""
    if revision < 2:
        await _rename_alerts(database)
    if revision < 3:
        await _gather_old_secrets(database)
    if revision < 4:
        await _keep_plans_that_ended(database)


async def _keep_plans_that_ended(database: Database) -> None:
    """Revision 3 forgot which plans users had. What it still knows: the last one of each, from its subscription."""
    ended = await database["subscriptions"].find({"state": "ended"}).to_list()
    rows = [
        PastPlanRow(
            user_id=one["user_id"],
            plan_group=one["plan_group"],
            from_ms=one["created_at_ms"],
            until_ms=one["updated_at_ms"],
            plan_id=one["plan_id"],
        )
        for one in ended
        if one["created_at_ms"] < one["updated_at_ms"]
    ]
    await MongoFlush(database, None).insert_missing(PastPlanRow, rows)


async def _gather_old_secrets(database: Database) -> None:
    """Revision 2 had the last secret of an endpoint alone."""
    await database.command("collMod", "webhooks", validator={})
    for webhook in await database["webhooks"].find({"old_secret": {"$ne": None}}).to_list():
        kept = {"old_secrets": [[webhook["old_secret"], webhook["old_secret_until_ms"]]], "old_secret": None}
        await database["webhooks"].update_one({"_id": webhook["_id"]}, {"$set": kept})


async def _rename_alerts(database: Database) -> None:
    """What revision 1 called alert_intents and intent_id. Can run again after it was cut off anywhere."""
    if "alert_intents" in await database.list_collection_names():
        await database["alert_intents"].rename("alerts")
    for name in ("alerts", "deliveries"):
        await database.command("collMod", name, validator={})  # the old one wants the field that goes
        await database[name].update_many({}, {"$rename": {"intent_id": "alert_id"}})


async def _deployment(database: Database) -> dict[str, str]:
    documents = await database[DeploymentRow.TABLE].find({}).to_list()
    return {row.name: row.value for row in rows_from(DeploymentRow, documents)}


async def _create(database: Database, name: str, validator: Document) -> None:
    try:
        await database.create_collection(name, validator=validator)
    except CollectionInvalid:
        pass  # another process made it
    except OperationFailure as error:
        if error.code != _EXISTS:
            raise
