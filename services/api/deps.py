"""What routes ask for: the parts, who is asking, and the price."""

import math
import re
from collections.abc import Callable
from typing import Annotated, Final, TypeVar, cast

from fastapi import Depends, Request

from core.accounts import Session
from core.config import settings
from core.credentials import Principal
from core.database import get_db
from core.domain.limits import Rate, Verdict
from core.errors import Forbidden, Invalid, Unauthenticated
from core.limits import refuse
from services.api.addresses import origin
from services.api.parts import Parts

T = TypeVar("T")
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


def parts_of(request: Request) -> Parts:
    """Return the parts of the application that a request is for."""
    return cast("Parts", request.app.state.parts)


def head_of(request: Request, name: bytes) -> str | None:
    """Return a header of a request by its lower-case name; the edge has sorted them once for all."""
    value = request.scope["state"]["head"].get(name)
    return None if value is None else value.decode("latin-1")


async def principal_of(request: Request) -> Principal:
    """Return who is asking, by `X-API-Key` or `Authorization: Bearer`. Raises Unauthenticated, Throttled."""
    credentials = parts_of(request).credentials
    key = head_of(request, b"x-api-key")
    try:
        if key is not None:
            return await credentials.of_key(key.strip())
        scheme, _, token = (head_of(request, b"authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            token = token.strip()
            return await (credentials.of_key if token.startswith("tf_") else credentials.of_token)(token)
    except Unauthenticated:
        # Guessing is paid for by address; a right credential costs nothing, so neighbours of a guesser get in.
        await charge_login(request, f"guess:{address_of(request)}")
        raise
    message = "Who is asking is not said"
    raise Unauthenticated(message, fix="send X-API-Key: tf_… or Authorization: Bearer <token>")


async def admin_of(who: Annotated[Principal, Depends(principal_of)]) -> Principal:
    """Return who is asking, when that is an administrator. Raises Forbidden."""
    if not who.is_admin:
        message = "Only an administrator may do this"
        raise Forbidden(message, fix="ask one; the operator makes one with: python -m core.accounts admin NAME")
    return who


Use = Annotated[Parts, Depends(parts_of)]
Who = Annotated[Principal, Depends(principal_of)]
Admin = Annotated[Principal, Depends(admin_of)]
Db = Annotated[Session, Depends(get_db)]


def committed(db: Session, change: Callable[[Session], T]) -> T:
    """Do the one change of a sync request and commit it, before anybody is told."""
    changed = change(db)
    db.commit()
    return changed


def address_of(request: Request) -> str:
    """Return where a request comes from, of IPv6 the /64: the peer, or what proxies of TASKFLOW_TRUSTED_PROXIES say.

    Other headers that claim an address are not believed: anybody can send them.
    """
    host = request.client.host if request.client else "unknown"
    # Not `head_of`: several headers of this name are one list, and that keeps the last of them only.
    forwarded = [value.decode("latin-1") for name, value in request.scope["headers"] if name == b"x-forwarded-for"]
    return origin(host, forwarded, settings.trusted_proxies)


async def charge_submit(request: Request, who: Principal, cost: int) -> None:
    """Take the price of `cost` tasks from their owner's allowance, whichever key is shown. Raises Throttled."""
    rate = Rate(settings.rate_limit_submit_per_minute)
    verdict = await parts_of(request).limiter.take(f"submit:{who.user_id}", rate, cost)
    _tell(request, rate, verdict)
    refuse(verdict, rate, cost)


async def charge_login(request: Request, key: str) -> None:
    """Take one try from the allowance of an address or an account. Raises Throttled."""
    rate = Rate(settings.rate_limit_auth_per_minute)
    verdict = await parts_of(request).logins.take(f"auth:{key}", rate)
    _tell(request, rate, verdict)
    refuse(verdict, rate)


def _tell(request: Request, rate: Rate, verdict: Verdict) -> None:
    request.scope["state"]["limits"] = [
        (b"ratelimit-limit", b"%d" % rate.limit),
        (b"ratelimit-remaining", b"%d" % verdict.remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(verdict.reset)),
    ]


def idempotency_key_of(request: Request) -> str | None:
    """Return the `Idempotency-Key`. Raises Invalid when it is not 1 to 255 printable ASCII characters."""
    key = head_of(request, b"idempotency-key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        message = "An Idempotency-Key has 1 to 255 printable ASCII characters"
        raise Invalid(message, fix="send a UUID, for example", field="Idempotency-Key")
    return key
