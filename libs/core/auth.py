"""Proofs of identity: passwords, API keys and access tokens. No web, no database.

A password is kept as an argon2id hash (RFC 9106, the low-memory profile: 64 MiB, 3 passes, 4 lanes). An API key is
`tf_<12 letters to find it by>_<43 letters of secret>`; the secret has 256 random bits, so SHA-256 keeps it as well as
a slow hash would. An access token is a JWT with one pinned algorithm and all of exp, iat, sub, jti, aud and iss.
"""

import hashlib
import hmac
import re
import secrets
import string
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import argon2
import jwt

from core.errors import Invalid, Throttled, Unauthenticated

PASSWORD_BYTES: Final = (8, 1024)
ISSUER: Final = "taskflow"
AUDIENCE: Final = "taskflow-api"
MOST_TOKEN_BYTES: Final = 4096
CLOCK_SKEW: Final = timedelta(seconds=5)

_PREFIX_LETTERS: Final = 12
_ALPHABET: Final = string.ascii_lowercase + string.digits
_KEY: Final = re.compile(r"tf_([a-z0-9]{12})_([A-Za-z0-9_-]{43})")
_CLAIMS: Final = ("exp", "iat", "sub", "jti", "aud", "iss")
_NOBODY: Final = hashlib.sha256(b"nobody's secret").digest()

# ── passwords ───────────────────────────────────────────────────────────────────────────────────────────────────────


def normal_password(password: str) -> str:
    """Return `password` in the form that is hashed: NFC, because keyboards differ. Raises Invalid by its size."""
    least, most = PASSWORD_BYTES
    # Measured before and after: normalising is work too, and nobody may ask for a megabyte of it.
    if len(password) <= most:
        password = unicodedata.normalize("NFC", password)
        if least <= len(password.encode(errors="replace")) <= most:
            return password
    message = f"A password has {least} to {most} bytes"
    raise Invalid(message, fix="choose another password", field="password")


class Passwords:
    """Hashes and checks passwords, a few at a time: each takes 64 MiB, so a crowd of logins is a memory attack."""

    def __init__(self, hasher: argon2.PasswordHasher | None = None, *, at_once: int = 4, patience: float = 2.0) -> None:
        """Let `at_once` hashes run; a caller waits `patience` seconds for its turn, then gets Throttled."""
        self._hasher = hasher or argon2.PasswordHasher()  # the library's defaults are RFC 9106's low-memory profile
        self._turns = threading.BoundedSemaphore(at_once)
        self._patience = patience
        self._dummy = ""

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=self._patience):
            message = "Too many passwords are being checked just now"
            raise Throttled(message, retry_after=self._patience, fix="try again a little later")
        try:
            yield
        finally:
            self._turns.release()

    def hash(self, password: str) -> str:
        """Return the hash of `password`, salt and parameters included. Blocks. Raises Invalid, Throttled."""
        normal = normal_password(password)
        with self._turn():
            return self._hasher.hash(normal)

    def verify(self, kept: str | None, password: str) -> bool:
        """Tell whether `password` is the one of the hash `kept`. Blocks. Raises Throttled.

        None stands for an account that is not there: the same work is done, so that the time tells nothing.
        """
        try:
            normal = normal_password(password)
        except Invalid:
            normal = "\0"  # still hashed below: a password that can be nobody's must cost what others cost
        with self._turn():
            try:
                self._hasher.verify(kept or self._stand_in(), normal)
            except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
                return False
        return kept is not None

    def outdated(self, kept: str) -> bool:
        """Tell whether `kept` was made with other parameters, so that a login should write it anew."""
        return self._hasher.check_needs_rehash(kept)

    def _stand_in(self) -> str:
        if not self._dummy:
            self._dummy = self._hasher.hash(secrets.token_hex())
        return self._dummy


# ── API keys ────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key as it was made. `text` is shown once and never kept; `prefix` and `hash` are what a row holds."""

    text: str = field(repr=False)
    prefix: str
    hash: bytes = field(repr=False)


def new_key() -> NewKey:
    """Make an API key."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(_PREFIX_LETTERS))
    secret = secrets.token_urlsafe(32)
    return NewKey(text=f"tf_{prefix}_{secret}", prefix=prefix, hash=secret_hash(secret))


def split_key(text: str) -> tuple[str, str] | None:
    """Return the prefix and the secret of an API key, or None when `text` does not look like one."""
    found = _KEY.fullmatch(text)
    return (found[1], found[2]) if found else None


def secret_hash(secret: str) -> bytes:
    """Return what is kept of a key's secret."""
    return hashlib.sha256(secret.encode()).digest()


def same_secret(kept: bytes | None, secret: str) -> bool:
    """Compare in a time that tells nothing; None (no such key) takes as long as a wrong secret."""
    return hmac.compare_digest(kept or _NOBODY, secret_hash(secret)) and kept is not None


# ── access tokens ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Tokens:
    """Signs and reads access tokens under one secret and one algorithm; what a token's header asks for is ignored."""

    secret: str = field(repr=False)
    algorithm: str = "HS256"
    lifetime: timedelta = timedelta(minutes=15)

    def issue(self, user_id: int, *, now: datetime) -> str:
        """Return a token that says who its bearer is until `now` + lifetime."""
        claims = {
            "sub": str(user_id),
            "iat": now,
            "exp": now + self.lifetime,
            "jti": secrets.token_urlsafe(12),
            "aud": AUDIENCE,
            "iss": ISSUER,
        }
        return jwt.encode(claims, self.secret, algorithm=self.algorithm)

    def read(self, token: str) -> int:
        """Return the user id of a token. Raises Unauthenticated, always with the same words."""
        if len(token) > MOST_TOKEN_BYTES:
            raise wrong_token()
        try:
            claims = jwt.decode(
                token,
                self.secret,
                algorithms=[self.algorithm],  # pinned: neither "none" nor another key type can be asked for
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=CLOCK_SKEW,
                options={"require": list(_CLAIMS)},  # PyJWT accepts a token without exp otherwise
            )
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise wrong_token() from None
        subject = claims["sub"]
        if not (subject.isascii() and subject.isdigit() and len(subject) <= 18):  # noqa: PLR2004 - fits a bigint
            raise wrong_token()
        return int(subject)


def wrong_token() -> Unauthenticated:
    """Return the one answer to every token that does not count, whatever the reason."""
    return Unauthenticated("The access token is not valid", fix="get a new one from POST /v1/auth/token")


def wrong_key() -> Unauthenticated:
    """Return the one answer to every API key that does not count: unknown, wrong, revoked or expired."""
    return Unauthenticated("The API key is not valid", fix="make a new one with POST /v1/api-keys")
