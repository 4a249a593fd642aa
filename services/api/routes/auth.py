"""Accounts: register, get a token."""

from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request

from core import accounts
from core.accounts import Session
from core.config import settings
from core.errors import Invalid
from core.models import User
from services.api import bodies
from services.api.deps import Db, Use, address_of, charge_login, committed
from services.api.openapi import body, example, problems
from services.api.schemas.accounts import RegisterIn, TokenIn, TokenOut, UserOut

router = APIRouter(prefix="/v1/auth", tags=["accounts"])
_FORM = "application/x-www-form-urlencoded"


async def _registration(request: Request) -> RegisterIn:
    await charge_login(request, f"address:{address_of(request)}")
    return await bodies.read_model(request, RegisterIn)


async def _login(request: Request) -> TokenIn:
    """Read name and password, paid for by the address and by the account, whether or not there is such an account."""
    await charge_login(request, f"address:{address_of(request)}")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        login = bodies.checked(TokenIn, _form(await bodies.read(request)))
    else:
        login = await bodies.read_model(request, TokenIn)
    await charge_login(request, f"account:{login.username.lower()}")
    return login


def _form(text: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            text.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=10, errors="strict"
        )
    except ValueError:
        message = "The form cannot be read"
        raise Invalid(message, fix="send username=…&password=…") from None
    # OAuth 2 clients send these beside the two that count.
    return {name: value for name, value in pairs if name not in {"grant_type", "scope", "client_id", "client_secret"}}


@router.post(
    "/register",
    status_code=201,
    summary="Make an account",
    openapi_extra=body(RegisterIn),
    responses={**example(201, UserOut), **problems(400, 403, 409, 413, 415, 422, 429)},
)
def register(wanted: Annotated[RegisterIn, Depends(_registration)], db: Db, parts: Use) -> dict[str, Any]:
    """Make a user, unless registration is closed. A name or an address that is taken gives 409."""
    secret = wanted.password.get_secret_value()

    def change(db: Session) -> User:
        return accounts.register(db, parts.passwords, username=wanted.username, email=wanted.email, password=secret)

    user = committed(db, change)
    return {
        "id": user.id,
        "username": user.username,
        "email": user.email,
        "is_admin": user.is_admin,
        "created_at": user.created_at,
    }


@router.post(
    "/token",
    summary="Get an access token",
    openapi_extra=body(TokenIn, form=True),
    responses={**example(200, TokenOut), **problems(400, 401, 413, 415, 422, 429)},
)
def token(login: Annotated[TokenIn, Depends(_login)], db: Db, parts: Use) -> dict[str, Any]:
    """Exchange a name and a password for a token. Every mistake gives the same 401."""
    secret = login.password.get_secret_value()

    def change(db: Session) -> User:
        return accounts.authenticate(db, parts.passwords, username=login.username, password=secret)

    user = committed(db, change)
    lifetime = timedelta(minutes=settings.access_token_expire_minutes)
    return {
        "access_token": parts.tokens.issue(user.id, now=parts.clock.now()),
        "token_type": "bearer",
        "expires_in": int(lifetime.total_seconds()),
    }
