"""API keys: made once, shown once, revoked for good."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response

from core import accounts
from core.accounts import Session
from core.errors import Invalid
from core.models import ApiKey
from services.api import bodies
from services.api.deps import Db, Use, Who, committed
from services.api.openapi import body, example, problems
from services.api.schemas.accounts import KeyIn, KeysOut, NewKeyOut

router = APIRouter(prefix="/v1/api-keys", tags=["accounts"])
KeyId = Annotated[int, Path(ge=1, lt=2**63, examples=[1])]


async def _wanted(request: Request) -> KeyIn:
    return await bodies.read_model(request, KeyIn)


@router.post(
    "",
    status_code=201,
    summary="Make an API key",
    openapi_extra=body(KeyIn),
    responses={**example(201, NewKeyOut, "The one time that the key is shown."), **problems(400, 409, 413, 415, 422)},
)
def create(who: Who, wanted: Annotated[KeyIn, Depends(_wanted)], db: Db, parts: Use) -> dict[str, Any]:
    """Make a key for programs. Keep it: only its hash stays here."""
    if wanted.expires_at is not None and wanted.expires_at <= parts.clock.now():
        message = "expires_at has passed already"
        raise Invalid(message, fix="choose a later time, or null for never", field="expires_at")

    def change(db: Session) -> accounts.MadeKey:
        return accounts.create_key(db, owner_id=who.user_id, name=wanted.name, expires_at=wanted.expires_at)

    made = committed(db, change)
    return {"key": made.text, **_told(made.row)}


@router.get("", summary="List your API keys", responses=example(200, KeysOut))
def list_keys(who: Who, db: Db) -> dict[str, Any]:
    """Return your keys, revoked ones included, newest first."""
    return {"keys": [_told(row) for row in accounts.list_keys(db, owner_id=who.user_id)]}


@router.delete(
    "/{key_id}",
    status_code=204,
    summary="Revoke an API key",
    responses={204: {"description": "Revoked: useless everywhere within five seconds."}, **problems(404, 422)},
)
def revoke(who: Who, key_id: KeyId, db: Db, parts: Use) -> Response:
    """Revoke a key, for good. A second time changes nothing."""
    committed(db, lambda db: accounts.revoke_key(db, owner_id=who.scope, key_id=key_id))
    parts.credentials.forget()  # here at once; elsewhere when the cache of five seconds ends
    return Response(status_code=204)


def _told(row: ApiKey) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "prefix": row.prefix,
        "is_active": row.is_active,
        "created_at": row.created_at,
        "last_used_at": row.last_used_at,
        "expires_at": row.expires_at,
    }
