"""Users and their API keys. Sync: none of it is hot. Each function takes a session and leaves the commit to its caller.

`python -m core.accounts admin NAME` makes a user an administrator: the one thing no request can do.
"""

import sys
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session as Session  # noqa: PLC0414 - services name it, and may not import sqlalchemy

from core import database, faults
from core.auth import Passwords, new_key, same_secret, secret_hash, split_key
from core.config import settings
from core.errors import Conflict, Forbidden, Invalid, NotFound, SettingError, Unauthenticated
from core.models import ApiKey, User
from core.process_protection import protect

MOST_KEYS: Final = 100
MOST_LISTED: Final = 1000
INSTALLED: Final = "installation"  # the name of the key that came with the installation


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeKey:
    """A new API key. `text` is shown once; nothing can tell it again."""

    row: ApiKey
    text: str = field(repr=False)


def register(session: Session, passwords: Passwords, *, username: str, email: str, password: str) -> User:
    """Make a user. Raises Forbidden when registration is closed, Conflict when the name or the address is taken.

    Which of the two is taken is not said, and the password is hashed in every case, so that the time says nothing.
    """
    if settings.registration == "closed":
        message = "Registration is closed"
        raise Forbidden(message, fix="ask an administrator for an account")
    user = User(username=username, email=email.lower(), password=passwords.hash(password))
    session.add(user)
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        message = "This user name or e-mail address cannot be used"
        raise Conflict(message, fix="choose another one, or get a token when the account is yours") from None
    session.refresh(user)
    return user


def authenticate(session: Session, passwords: Passwords, *, username: str, password: str) -> User:
    """Return the user of a name and a password. Raises Unauthenticated in the same words and time for any mistake."""
    user = session.scalar(select(User).where(User.username == username))
    # The connection goes back before the slow part: a crowd of logins must not hold the pool.
    session.rollback()
    right = passwords.verify(user.password if user else None, password)
    if user is None or not right or not user.is_active:
        message = "The user name or the password is wrong"
        raise Unauthenticated(message, fix="check both; POST /v1/auth/register makes an account")
    if passwords.outdated(user.password):
        session.execute(update(User).where(User.id == user.id).values(password=passwords.hash(password)))
    return user


def create_key(session: Session, *, owner_id: int, name: str, expires_at: datetime | None) -> MadeKey:
    """Make an API key. Raises Conflict when the owner has too many."""
    active = select(func.count()).where(ApiKey.owner_id == owner_id, ApiKey.is_active)
    if (session.scalar(active) or 0) >= MOST_KEYS:
        message = f"A user may have {MOST_KEYS} active keys"
        raise Conflict(message, fix="revoke those that are not needed: DELETE /v1/api-keys/{id}")
    made = new_key()
    row = ApiKey(prefix=made.prefix, hash=made.hash, owner_id=owner_id, name=name, expires_at=expires_at)
    session.add(row)
    session.flush()
    session.refresh(row)
    return MadeKey(row=row, text=made.text)


def list_keys(session: Session, *, owner_id: int) -> list[ApiKey]:
    """Return the keys of a user, revoked ones included, newest first."""
    query = select(ApiKey).where(ApiKey.owner_id == owner_id).order_by(ApiKey.id.desc())
    return list(session.scalars(query.limit(MOST_LISTED)))


def revoke_key(session: Session, *, owner_id: int | None, key_id: int) -> ApiKey:
    """Make a key useless, for good; a second time changes nothing. Raises NotFound, also for another owner's key."""
    query = select(ApiKey).where(ApiKey.id == key_id)
    row = session.scalar(query if owner_id is None else query.where(ApiKey.owner_id == owner_id))
    if row is None:
        message = f"There is no API key {key_id}"
        raise NotFound(message, fix="GET /v1/api-keys lists yours")
    row.is_active = False
    session.flush()
    return row


def ensure_admin(session: Session, passwords: Passwords, *, username: str, password: str, api_key: str | None) -> bool:
    """Make an administrator with this password and this API key, as an installation asks; True when that changed a row.

    A second time nothing changes but what was asked for otherwise: another password, or another key, which revokes the
    installation's former one. Raises Conflict when the name is taken by somebody who is no administrator, because
    whoever has it could have registered it, and Invalid when the key does not look like one.
    """
    user = session.scalar(select(User).where(User.username == username))
    if user is not None and not user.is_admin:
        message = f"The user {username!r} is no administrator"
        raise Conflict(message, fix=f"choose another name, or: python -m core.accounts admin {username}")
    changed = False
    if user is None:
        user = User(username=username, email=f"{username}@taskflow.invalid", password="", is_admin=True)
        session.add(user)
    if not user.password or not passwords.verify(user.password, password):
        user.password = passwords.hash(password)
        changed = True
    try:
        session.flush()
    except IntegrityError:
        session.rollback()
        message = f"The user {username!r} cannot be made, another account stands in its way"
        raise Conflict(message, fix="choose another name") from None
    return (_ensure_key(session, user.id, api_key) if api_key else False) or changed


def _ensure_key(session: Session, owner_id: int, text: str) -> bool:
    halves = split_key(text)
    if halves is None:
        message = "This is no API key"
        raise Invalid(message, fix="tf_, 12 of a-z0-9, _, 43 of A-Za-z0-9_-")
    prefix, secret = halves
    row = session.scalar(select(ApiKey).where(ApiKey.prefix == prefix))
    if row is not None:
        if row.owner_id != owner_id or not same_secret(row.hash, secret):
            message = f"There is another API key that begins with tf_{prefix}"
            raise Conflict(message, fix="make a new one")
        return False  # also when it was revoked: that is for good
    former = update(ApiKey).where(ApiKey.owner_id == owner_id, ApiKey.name == INSTALLED)
    session.execute(former.values(is_active=False))
    session.add(ApiKey(prefix=prefix, hash=secret_hash(secret), owner_id=owner_id, name=INSTALLED, expires_at=None))
    session.flush()
    return True


def set_admin(session: Session, *, username: str, is_admin: bool) -> User:
    """Make a user an administrator, or no longer one. Raises NotFound."""
    user = session.scalar(select(User).where(User.username == username))
    if user is None:
        message = f"There is no user {username!r}"
        raise NotFound(message, fix="register it first: POST /v1/auth/register")
    user.is_admin = is_admin
    session.flush()
    return user


def main(arguments: list[str]) -> int:
    """Run `admin NAME` or `user NAME`; return the exit code: 0 done, 1 refused, 2 wrong call or setting."""
    match arguments:
        case [("admin" | "user") as role, username]:
            pass
        case _:
            print("usage: python -m core.accounts admin|user USERNAME", file=sys.stderr)
            return 2
    try:
        protect()
        with database.SessionLocal() as session:
            set_admin(session, username=username, is_admin=role == "admin")
            session.commit()
    except SettingError as wrong:
        print(wrong, file=sys.stderr)
        return 2
    except (NotFound, Invalid) as refused:
        print(refused, file=sys.stderr)
        return 1
    except SQLAlchemyError as error:
        print(faults.translate(error) or error, file=sys.stderr)
        return 1
    print(f"{username} is now {'an administrator' if role == 'admin' else 'a user without rights of administration'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
