"""Users, tokens and API keys."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, SecretStr

from services.api.schemas.base import In, Moment, Out, OutMoment

_USERNAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{1,62}$"
_EMAIL = r"^[^@\s\x00-\x20\x7f]{1,64}@[A-Za-z0-9.-]{1,190}$"
_MOMENT = "2030-01-31T12:00:00Z"
_KEY = "tf_k3v9x0qmd1za_" + "x" * 43

_KEY_OUT: dict[str, Any] = {
    "id": 1,
    "name": "laptop",
    "prefix": "k3v9x0qmd1za",
    "is_active": True,
    "created_at": _MOMENT,
    "last_used_at": None,
    "expires_at": None,
}

Password = Annotated[SecretStr, Field(min_length=1, max_length=1024, description="8 to 1,024 bytes.")]


class RegisterIn(In):
    """A new user."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"username": "ada", "email": "ada@example.org", "password": "correct horse"}}
    )

    username: Annotated[str, Field(pattern=_USERNAME, description="Letters, digits, dot, underscore, hyphen; 2 to 63.")]
    email: Annotated[str, Field(pattern=_EMAIL)]
    password: Password


class UserOut(Out):
    """A user, without anything secret."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 1,
                "username": "ada",
                "email": "ada@example.org",
                "is_admin": False,
                "created_at": _MOMENT,
            }
        }
    )

    id: int
    username: str
    email: str
    is_admin: bool
    created_at: OutMoment


class TokenIn(In):
    """Name and password; the same two as a form work as well."""

    model_config = ConfigDict(json_schema_extra={"example": {"username": "ada", "password": "correct horse"}})

    username: Annotated[str, Field(min_length=1, max_length=254)]
    password: Password


class TokenOut(Out):
    """A token for `Authorization: Bearer …`."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"access_token": "eyJhbGciOi…", "token_type": "bearer", "expires_in": 900}}
    )

    access_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds.")


class KeyIn(In):
    """An API key to be made."""

    model_config = ConfigDict(json_schema_extra={"example": {"name": "laptop", "expires_at": None}})

    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]
    expires_at: Moment | None = Field(default=None, description="None: never.")


class KeyOut(Out):
    """An API key, without its secret."""

    model_config = ConfigDict(json_schema_extra={"example": _KEY_OUT})

    id: int
    name: str
    prefix: str
    is_active: bool
    created_at: OutMoment
    last_used_at: OutMoment | None
    expires_at: OutMoment | None


class NewKeyOut(KeyOut):
    """A new API key: the one time that `key` is shown."""

    model_config = ConfigDict(json_schema_extra={"example": {**_KEY_OUT, "key": _KEY}})

    key: str


class KeysOut(Out):
    """A user's API keys."""

    model_config = ConfigDict(json_schema_extra={"example": {"keys": [_KEY_OUT]}})

    keys: list[KeyOut]
