"""The one account of a machine that is its owner's alone: for `taskflow dev`. Sync; the caller commits."""

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from core import accounts, clock
from core.auth import Passwords, same_secret, split_key
from core.models import ApiKey, User


def owner(session: Session, username: str) -> User:
    """Return the user of that name, made now when there is none: an administrator with a password nobody knows."""
    found = session.scalar(select(User).where(User.username == username))
    if found is None:
        password = Passwords().hash(secrets.token_urlsafe(24))
        found = User(username=username, email=f"{username}@localhost.invalid", password=password, is_admin=True)
        session.add(found)
        session.flush()
    return found


def key_of(session: Session, user: User, known: str | None) -> str:
    """Return an API key of a user: `known` when it is one that still works, else a new one."""
    parts = split_key(known or "")
    if parts is not None:
        prefix, secret = parts
        row = session.scalar(select(ApiKey).where(ApiKey.prefix == prefix))
        good = same_secret(row.hash if row else None, secret) and row is not None and row.owner_id == user.id
        if good and row is not None and row.is_active and (row.expires_at is None or row.expires_at > clock.now()):
            return known or ""
        if row is not None and row.owner_id == user.id:
            row.is_active = False  # ours, and of no use: it must not count against the most that a user may have
    return accounts.create_key(session, owner_id=user.id, name="taskflow dev", expires_at=None).text
