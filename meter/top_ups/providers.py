"""The provider that `METER_PAYMENTS` names."""

from __future__ import annotations

import base64
import binascii
from inspect import iscoroutinefunction
from typing import cast

from meter.config import Settings
from meter.errors import ConfigError
from meter.extension import attribute, in_a_line, is_attribute, offered, offers
from meter.top_ups.provider import PaymentProvider
from meter.top_ups.stripe import STRIPE_URL, StripeProvider, read_price
from meter.top_ups.webhook import WebhookProvider

ENTRY_POINTS = "meter.payments"
"""The group in which a package offers providers of its own."""

_SETTING = "METER_PAYMENTS"
_METHODS = ("pay", "look_up", "event", "close")


def provider_of(settings: Settings) -> PaymentProvider | None:
    """The provider; None where none is set up. Raises `ConfigError`."""
    name, _, argument = settings.payments.partition(":")
    if not name:
        return None
    if name == "webhook":
        return _webhook(argument, settings.payments_secret)
    if name == "stripe":
        return _stripe(argument, settings)
    made_by = offered(_SETTING, ENTRY_POINTS, settings.payments)
    if made_by is None:
        if not is_attribute(settings.payments):
            known = ", ".join(["webhook:URL", "stripe", "module:attribute", *offers(ENTRY_POINTS)])
            raise ConfigError(f"{_SETTING}: {name!r} is none of {known}")
        made_by = attribute(_SETTING, settings.payments)
    return _made(settings.payments, made_by)


def _webhook(url: str, secret: str) -> PaymentProvider:
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{_SETTING}: webhook: wants the URL of an endpoint behind it")
    try:
        is_secret = bool(base64.b64decode(secret.removeprefix("whsec_"), validate=True))
    except (binascii.Error, ValueError):
        is_secret = False
    if not is_secret:
        raise ConfigError(f"{_SETTING}_SECRET: webhook: wants a secret of Standard Webhooks, whsec_ and base64")
    return WebhookProvider(url, secret)


def _stripe(url: str, settings: Settings) -> PaymentProvider:
    for name, value in (("KEY", settings.payments_key), ("SECRET", settings.payments_secret)):
        if not value:
            raise ConfigError(f"{_SETTING}_{name}: stripe wants it")
    return StripeProvider(
        settings.payments_key,
        settings.payments_secret,
        read_price(settings.credit_price),
        url or STRIPE_URL,
    )


def _made(name: str, made_by: object) -> PaymentProvider:
    """An object that is a provider, or what a class or function makes."""
    try:
        is_maker = isinstance(made_by, type) or not hasattr(made_by, "pay")
        made = made_by() if is_maker and callable(made_by) else made_by
    except Exception as error:
        raise ConfigError(f"{_SETTING}: {name} makes no provider: {in_a_line(error)}") from error
    missing = [method for method in _METHODS if not iscoroutinefunction(getattr(made, method, None))]
    if missing:
        raise ConfigError(f"{_SETTING}: {name} is no provider: it has no `async def {missing[0]}`")
    return cast("PaymentProvider", made)
