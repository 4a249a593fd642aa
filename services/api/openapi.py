"""/openapi.json: bodies that the routes read by themselves, security, and one shape for every error."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from services.api.schemas.accounts import KeyIn, RegisterIn, TokenIn
from services.api.schemas.base import In, Out
from services.api.schemas.cluster import LimitsIn, Problem
from services.api.schemas.tasks import BatchIn, CancelIn, TaskIn

_REF = "#/components/schemas/{model}"
_BODIES: tuple[type[BaseModel], ...] = (BatchIn, CancelIn, KeyIn, LimitsIn, Problem, RegisterIn, TaskIn, TokenIn)
_OPEN = ("/healthz", "/readyz", "/v1/auth/")  # no credentials are asked for here
_TITLES = {
    400: "The body is not JSON.",
    401: "Who is asking is not known.",
    403: "Not allowed to who is asking.",
    404: "Not there, or not the caller's.",
    409: "Not possible in the present state.",
    413: "Too large.",
    415: "Not JSON, or packed.",
    422: "A value that cannot be accepted; `field` names it.",
    429: "Too often; `Retry-After` says when again.",
    503: "A store is down; nothing was lost, `Retry-After` says when to try again.",
}
_DESCRIPTION = """
TaskFlow runs tasks. Submit them here, read what became of them, and wait for their results.

Errors are `application/problem+json`; `code` is stable, `fix` says what to do, `field` names the part of the request.
A 5xx or a cut connection means *unknown*: with the same `Idempotency-Key` a repeated submit is written once.
"""


def example(status: int, model: type[BaseModel], description: str = "Success.") -> dict[int | str, dict[str, Any]]:
    """Return how an answer is documented: its model, whose example stands in the model."""
    return {status: {"model": model, "description": description}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how the errors of a route are documented."""
    content = {"application/problem+json": {"schema": {"$ref": _REF.format(model="Problem")}}}
    return {status: {"description": _TITLES[status], "content": content} for status in statuses}


def body(model: type[BaseModel], *, required: bool = True, form: bool = False) -> dict[str, Any]:
    """Return `openapi_extra` of a route that reads `model` by itself."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    content: dict[str, Any] = {"application/json": {"schema": schema, **_example(model)}}
    if form:
        content["application/x-www-form-urlencoded"] = {"schema": schema}
    return {"requestBody": {"required": required, "content": content}}


def header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
    """Return the documentation of a header that a route reads by itself."""
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def install(app: FastAPI) -> None:
    """Let `app` tell its routes completely."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _describe(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _describe(app: FastAPI) -> dict[str, Any]:
    told = get_openapi(title="TaskFlow", version="1", description=_DESCRIPTION, routes=app.routes)
    _, bodies = models_json_schema([(model, "validation") for model in _BODIES], ref_template=_REF)
    components = told.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for name, schema in bodies["$defs"].items():
        schemas.setdefault(name, schema)
    for model in _family(In) + _family(Out):
        # FastAPI drops what is null, in examples too.
        if model.__name__ in schemas:
            schemas[model.__name__] |= _example(model)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    }
    for path, operations in told["paths"].items():
        for operation in operations.values():
            _complete(path, operation, schemas)
    return told


def _complete(path: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422", "")):
        answers["422"] = problems(422)[422]
    if not path.startswith(_OPEN):
        operation["security"] = [{"apiKey": []}, {"token": []}]
        answers.setdefault("401", problems(401)[401])
    if path.startswith("/v1/"):
        answers.setdefault("503", problems(503)[503])
        answers.setdefault("429", problems(429)[429])
    for answer in answers.values():
        for content in answer.get("content", {}).values():
            name = str(content.get("schema", {}).get("$ref", "")).rpartition("/")[2]
            if "example" in schemas.get(name, {}):
                content.setdefault("example", schemas[name]["example"])


def _family(base: type[BaseModel]) -> list[type[BaseModel]]:
    return [each for child in base.__subclasses__() for each in (child, *_family(child))]


def _example(model: type[BaseModel]) -> dict[str, Any]:
    extra = model.model_config.get("json_schema_extra")
    return {"example": extra["example"]} if isinstance(extra, dict) and "example" in extra else {}
