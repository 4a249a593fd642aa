from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import argon2
import jwt
import pytest

from core import accounts, auth, config, credentials, database
from core.errors import Throttled
from tests.conftest import SECRET_KEY
from tests.integration.api.conftest import CHEAP, PASSWORD

if TYPE_CHECKING:
    from httpx2 import AsyncClient

    from tests.integration.api.conftest import Api

NOW = datetime.now(UTC)


def _claims(user_id: int, **other: Any) -> dict[str, Any]:
    claims = {
        "sub": str(user_id), "iat": NOW, "exp": NOW + timedelta(days=1), "jti": "x",
        "aud": auth.AUDIENCE, "iss": auth.ISSUER, **other,
    }  # fmt: skip
    return {name: value for name, value in claims.items() if value is not None}


def _unsigned(claims: dict[str, Any], header: dict[str, Any]) -> str:
    def part(value: dict[str, Any]) -> str:
        return (
            base64.urlsafe_b64encode(json.dumps(value, default=lambda t: int(t.timestamp())).encode())
            .decode()
            .rstrip("=")
        )

    return f"{part(header)}.{part(claims)}."


async def test_from_registration_to_a_task_by_token(api: Api) -> None:
    someone = {"username": "grace", "email": "Grace@Example.org", "password": PASSWORD}
    made = await api.anonymous.post("/v1/auth/register", json=someone)
    assert (made.status_code, made.json()["email"], made.json()["is_admin"]) == (201, "grace@example.org", False)
    assert PASSWORD not in made.text
    assert "password" not in made.text
    for how in (
        {"json": {"username": "grace", "password": PASSWORD}},
        {"data": {"username": "grace", "password": PASSWORD}},
    ):
        token = (await api.anonymous.post("/v1/auth/token", **how)).json()  # type: ignore[arg-type]
        assert (token["token_type"], token["expires_in"]) == ("bearer", 900)
        async with api.client(authorization=f"Bearer {token['access_token']}") as grace:
            assert (await grace.post("/v1/tasks", json={"type": "a:b"})).status_code == 201


async def test_registration_can_be_closed(api: Api) -> None:
    with config.override(registration="closed"):
        someone = {"username": "late", "email": "late@example.org", "password": PASSWORD}
        refused = await api.anonymous.post("/v1/auth/register", json=someone)
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


async def test_a_name_or_address_that_is_taken_is_not_told_apart(api: Api) -> None:
    api.user("taken")
    answers = []
    for username, email in (("taken", "new@example.org"), ("new", "TAKEN@example.org"), ("taken", "taken@example.org")):
        someone = {"username": username, "email": email, "password": PASSWORD}
        answer = await api.anonymous.post("/v1/auth/register", json=someone)
        answers.append((answer.status_code, {**answer.json(), "request_id": ""}))
    assert answers[0][0] == 409
    assert answers[0] == answers[1] == answers[2]


async def test_every_failed_login_looks_the_same(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    api.user("known")
    disabled = api.user("disabled")
    with database.SessionLocal() as session:
        session.merge(disabled).is_active = False
        session.commit()
    hashed = []
    verify = argon2.PasswordHasher.verify
    monkeypatch.setattr(argon2.PasswordHasher, "verify", lambda *given: hashed.append(1) or verify(*given))
    answers = []
    for username, password in (
        ("known", "wrong password"), ("nobody", "wrong password"), ("disabled", PASSWORD), ("known", "short"),
        ("nobody\u00e9", PASSWORD),
    ):  # fmt: skip
        answer = await api.anonymous.post("/v1/auth/token", json={"username": username, "password": password})
        answers.append((answer.status_code, {**answer.json(), "request_id": ""}, len(hashed)))
    assert [status for status, _, _ in answers] == [401] * 5
    assert [body for _, body, _ in answers] == [answers[0][1]] * 5
    assert [count for _, _, count in answers] == [1, 2, 3, 4, 5]


async def test_a_login_writes_an_outdated_hash_anew(api: Api) -> None:
    user = api.user("old")
    with database.SessionLocal() as session:
        stronger = auth.Passwords(argon2.PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
        accounts.authenticate(session, stronger, username="old", password=PASSWORD)
        session.commit()
        now = session.get(accounts.User, user.id)
        assert now is not None
        assert now.password != user.password
        assert stronger.verify(now.password, PASSWORD)


async def test_a_password_outside_its_bounds_is_refused_before_it_is_hashed(api: Api) -> None:
    for password in ["short", "x" * 1025, "é" * 600, "", 12345678, None]:
        answer = await api.anonymous.post(
            "/v1/auth/register", json={"username": "bounds", "email": "b@example.org", "password": password}
        )
        assert (answer.status_code, answer.json()["field"]) == (422, "password")


def test_hashing_is_bounded() -> None:
    one = auth.Passwords(CHEAP._hasher, at_once=1, patience=0.01)
    with one._turn(), pytest.raises(Throttled):
        one.hash(PASSWORD)
    assert one.verify(one.hash(PASSWORD), PASSWORD)


async def test_a_key_is_shown_once_and_only_its_hash_is_kept(api: Api, ada: AsyncClient) -> None:
    made = (await ada.post("/v1/api-keys", json={"name": "laptop"})).json()
    secret = made["key"].rpartition("_")[2] if made["key"].count("_") == 2 else made["key"][16:]
    listed = await ada.get("/v1/api-keys")
    assert made["prefix"] in listed.text
    assert secret not in listed.text
    async with api.parts.reads.connection() as tx:
        kept = str(await tx.fetch("select * from api_keys")) + str(await tx.fetch("select * from users"))
    assert secret not in kept
    assert PASSWORD not in kept
    async with api.client(**{"x-api-key": made["key"]}) as laptop:
        assert (await laptop.get("/v1/tasks")).status_code == 200
    async with api.client(authorization=f"Bearer {made['key']}") as laptop:
        assert (await laptop.get("/v1/tasks")).status_code == 200


async def test_every_wrong_key_looks_the_same(api: Api) -> None:
    user = api.user("ada")
    expired = api.key(user, expires_at=NOW - timedelta(seconds=1))
    revoked = api.key(user)
    with database.SessionLocal() as session:
        accounts.revoke_key(session, owner_id=user.id, key_id=revoked.row.id)
        session.commit()
    good = api.key(user).text
    answers = set()
    for key in (
        expired.text,
        revoked.text,
        good[:16] + "x" * 43,
        f"tf_{'a' * 12}_{'b' * 43}",
        "tf_",
        "",
        "x" * 9000,
        good + "x",
    ):
        answer = await api.anonymous.get("/v1/tasks", headers={"x-api-key": key})
        answers.add((answer.status_code, str({**answer.json(), "request_id": ""})))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 401


async def test_a_key_expires_on_the_dot_although_it_is_cached(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    made = api.key(api.user("ada"), expires_at=expires)

    def at(moment: datetime) -> None:
        monkeypatch.setattr(type(api.parts.clock), "now", lambda _: moment)

    async with api.client(**{"x-api-key": made.text}) as ada:
        at(expires - timedelta(microseconds=1))
        assert (await ada.get("/v1/tasks")).status_code == 200
        at(expires)
        assert (await ada.get("/v1/tasks")).status_code == 401


async def test_a_revoked_key_dies_within_five_seconds_elsewhere_and_at_once_here(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = api.user("ada")
    first, second = api.key(user), api.key(user)
    async with api.client(**{"x-api-key": first.text}) as one, api.client(**{"x-api-key": second.text}) as two:
        assert (await two.get("/v1/tasks")).status_code == 200
        assert (await one.delete(f"/v1/api-keys/{second.row.id}")).status_code == 204
        assert (await two.get("/v1/tasks")).status_code == 401
        assert (await one.get("/v1/tasks")).status_code == 200
        # Revoked by another process: this one learns it when its cache ends.
        with database.SessionLocal() as session:
            accounts.revoke_key(session, owner_id=user.id, key_id=first.row.id)
            session.commit()
        assert (await one.get("/v1/tasks")).status_code == 200
        assert credentials.CACHE_SECONDS <= 5.0
        real = api.parts.clock.monotonic
        monkeypatch.setattr(type(api.parts.clock), "monotonic", lambda _: real() + credentials.CACHE_SECONDS)
        assert (await one.get("/v1/tasks")).status_code == 401


async def test_a_disabled_user_is_out_whatever_is_shown(api: Api) -> None:
    user = api.user("ada")
    token = api.parts.tokens.issue(user.id, now=NOW)
    key = api.key(user).text
    with database.SessionLocal() as session:
        session.merge(user).is_active = False
        session.commit()
    assert (await api.anonymous.get("/v1/tasks", headers={"x-api-key": key})).status_code == 401
    assert (await api.anonymous.get("/v1/tasks", headers={"authorization": f"Bearer {token}"})).status_code == 401


async def test_last_use_is_noted_once_a_minute_in_one_statement(api: Api) -> None:
    user = api.user("ada")
    keys = [api.key(user) for _ in range(3)]
    for key in keys[:2] * 5:
        assert (await api.anonymous.get("/v1/tasks", headers={"x-api-key": key.text})).status_code == 200
    assert await api.parts.credentials.write_notes() == 2
    with database.SessionLocal() as session:
        noted = {row.id: row.last_used_at for row in accounts.list_keys(session, owner_id=user.id)}
    assert [noted[key.row.id] is not None for key in keys] == [True, True, False]
    await api.anonymous.get("/v1/tasks", headers={"x-api-key": keys[0].text})
    assert await api.parts.credentials.write_notes() == 0


ATTACKS: dict[str, Any] = {
    "none": lambda user: _unsigned(_claims(user), {"alg": "none", "typ": "JWT"}),
    "None in capitals": lambda user: _unsigned(_claims(user), {"alg": "NONE", "typ": "JWT"}),
    "another algorithm": lambda user: jwt.encode(_claims(user), SECRET_KEY * 2, algorithm="HS512"),
    "right secret, another algorithm": lambda user: jwt.encode(
        _claims(user), SECRET_KEY.ljust(64, "x"), algorithm="HS384"
    ),
    "another secret": lambda user: jwt.encode(_claims(user), "y" * 40, algorithm="HS256"),
    "expired": lambda user: jwt.encode(_claims(user, exp=NOW - timedelta(hours=1)), SECRET_KEY),
    "without exp": lambda user: jwt.encode(_claims(user, exp=None), SECRET_KEY),
    "without sub": lambda user: jwt.encode(_claims(user, sub=None), SECRET_KEY),
    "without jti": lambda user: jwt.encode(_claims(user, jti=None), SECRET_KEY),
    "without iat": lambda user: jwt.encode(_claims(user, iat=None), SECRET_KEY),
    "of the future": lambda user: jwt.encode(_claims(user, nbf=NOW + timedelta(hours=12)), SECRET_KEY),
    "for others": lambda user: jwt.encode(_claims(user, aud="refresh"), SECRET_KEY),
    "by others": lambda user: jwt.encode(_claims(user, iss="someone"), SECRET_KEY),
    "of nobody": lambda _: jwt.encode(_claims(10**9), SECRET_KEY),
    "sub is no number": lambda user: jwt.encode(_claims(user, sub="1 or 1=1"), SECRET_KEY),
    "sub is enormous": lambda user: jwt.encode(_claims(user, sub="9" * 400), SECRET_KEY),
    "kid is a path": lambda user: jwt.encode(_claims(user), "\0", algorithm="HS256", headers={"kid": "../../dev/null"}),
    "brings its key": lambda user: jwt.encode(_claims(user), "z" * 40, headers={"jwk": {"k": "z"}, "jku": "http://x"}),
    "large": lambda user: jwt.encode(_claims(user, more="x" * 9000), SECRET_KEY),
    "signature cut": lambda user: jwt.encode(_claims(user), SECRET_KEY)[:-2],
    "no token": lambda _: "….….…",
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_tokens_that_do_not_count(api: Api) -> None:
    user = api.user("ada")
    good = jwt.encode(_claims(user.id), SECRET_KEY)
    assert (await api.anonymous.get("/v1/tasks", headers={"authorization": f"Bearer {good}"})).status_code == 200
    told = {}
    for attack, forge in ATTACKS.items():
        bearer = [(b"authorization", f"Bearer {forge(user.id)}".encode())]
        answer = await api.anonymous.get("/v1/tasks", headers=bearer)
        told[attack] = (answer.status_code, answer.json()["detail"])
    assert told == dict.fromkeys(ATTACKS, (401, "The access token is not valid"))


async def test_callers_that_miss_the_cache_together_ask_once(api: Api) -> None:
    made = api.key(api.user("ada"))
    asked = []
    read = api.parts.credentials._keys._ask

    async def counted(prefix: str) -> Any:
        asked.append(prefix)
        return await read(prefix)

    api.parts.credentials._keys._ask = counted
    await asyncio.gather(*(api.parts.credentials.of_key(made.text) for _ in range(50)))
    assert len(asked) == 1


def test_the_command_line_makes_administrators(api_database: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert accounts.main(["admin", "nobody"]) == 1
    assert "no user 'nobody'" in capsys.readouterr().err
    with database.SessionLocal() as session:
        accounts.register(session, CHEAP, username="ada", email="a@example.org", password=PASSWORD)
        session.commit()
    assert accounts.main(["admin", "ada"]) == 0
    with database.SessionLocal() as session:
        user = session.get(accounts.User, 1)
        assert user is not None
        assert user.is_admin
    assert accounts.main(["ada"]) == 2
