"""The REST API as a document: a change of it is seen here before a client sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import config
from services.api.app import create_app
from tests.contract.files import ROOT

SNAPSHOT = ROOT / "docs/openapi.json"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    with config.override(env="production"):
        return create_app().openapi()


def test_docs_openapi_json_is_what_the_api_tells(told: dict[str, Any]) -> None:
    text = json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if not SNAPSHOT.exists():
        SNAPSHOT.write_text(text, encoding="utf-8")
    kept = SNAPSHOT.read_text(encoding="utf-8")
    assert kept == text, "the API has changed: delete docs/openapi.json, run this test again, and read the difference"


def _operations(told: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, operations in told["paths"].items()
        for method, operation in operations.items()
    ]


def test_every_operation_says_what_it_is_and_gives_examples(told: dict[str, Any]) -> None:
    lacking = []
    for name, operation in _operations(told):
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        successes = [answer for code, answer in operation["responses"].items() if code.startswith("2")]
        shown = all("example" in content for answer in successes for content in answer.get("content", {}).values())
        if not (operation.get("summary") and operation.get("description") and successes and shown):
            lacking.append(name)
        if "requestBody" in operation and "example" not in body:
            lacking.append(f"{name}: body")
    assert lacking == []


def test_every_error_has_the_one_shape(told: dict[str, Any]) -> None:
    odd = [
        (name, code)
        for name, operation in _operations(told)
        for code, answer in operation["responses"].items()
        if code.startswith(("4", "5")) and (name, code) != ("GET /readyz", "503")
        if "application/problem+json" not in answer.get("content", {})
    ]
    assert odd == []


def test_every_path_of_v1_asks_who_is_asking(told: dict[str, Any]) -> None:
    unasked = {name for name, operation in _operations(told) if "security" not in operation}
    assert unasked == {
        "GET /healthz",
        "GET /readyz",
        "POST /v1/auth/register",
        "POST /v1/auth/token",
    }


def test_nothing_secret_is_a_field_of_an_answer(told: dict[str, Any]) -> None:
    asked_for = {"RegisterIn", "TokenIn"}
    fields = {
        (name, field)
        for name, schema in told["components"]["schemas"].items()
        if name not in asked_for
        for field in schema.get("properties", {})
    }
    assert {field for _, field in fields} & {"password", "hash", "secret", "claim", "permit"} == set()
    assert {name for name, field in fields if field == "key"} == {"NewKeyOut"}


def test_examples_are_what_they_are_examples_of(told: dict[str, Any]) -> None:
    import jsonschema_rs

    for name, schema in told["components"]["schemas"].items():
        if "example" in schema:
            whole = {**schema, "components": told["components"]}
            errors = [str(error) for error in jsonschema_rs.validator_for(whole).iter_errors(schema["example"])]
            assert errors == [], name
