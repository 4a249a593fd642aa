"""Request bodies: read within bounds, parsed strictly, checked against a model."""

import asyncio
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from core import strict_json
from core.errors import Invalid
from services.api import problems

BODY_SECONDS: Final = 30.0
_JSON: Final = b"application/json"
_BIG: Final = 256 * 1024  # beyond this the strict examination may take long enough for others to notice
Model = TypeVar("Model", bound=BaseModel)


async def read(request: Request) -> bytes:
    """Return the body. Raises TooLarge (from the edge) or SlowBody."""
    message = await request.receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if not message.get("more_body", False):
        return bytes(message.get("body", b""))
    parts = [message.get("body", b"")]
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while message.get("more_body", False):
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
    except TimeoutError:
        text = f"The body did not arrive within {BODY_SECONDS:g} seconds"
        raise problems.SlowBody(text, fix="send it faster, or in parts") from None
    return b"".join(parts)


async def read_json(request: Request) -> Any:
    """Return the body's JSON value. Raises Invalid, UnsupportedMedia, TooLarge."""
    kind = request.scope["state"]["head"].get(b"content-type", _JSON)
    if kind != _JSON and not _is_json(kind):
        # A page of another origin can send a form or plain text without being asked, so those are never read as JSON.
        message = "The body must be JSON"
        raise problems.UnsupportedMedia(message, fix="send Content-Type: application/json", field="Content-Type")
    text = await read(request)
    if len(text) > _BIG:
        return await asyncio.to_thread(strict_json.loads, text)
    return strict_json.loads(text)


def checked(model: type[Model], value: object, *, at: str = "") -> Model:
    """Return `value` as `model`. Raises Invalid, which names the first field that is wrong, below `at`."""
    if not isinstance(value, dict):
        where = f"{at}: " if at else ""
        raise Invalid(f"{where}it must be a JSON object", fix="see /openapi.json", field=at or None)
    try:
        return model.model_validate(value)
    except ValidationError as wrong:
        found: list[Any] = list(wrong.errors(include_url=False, include_input=False, include_context=False))
        raise problems.invalid(found, at=at) from None


def _is_json(kind: bytes) -> bool:
    name = kind.partition(b";")[0].strip().lower()
    return name == _JSON or name.endswith(b"+json")


async def read_model(request: Request, model: type[Model]) -> Model:
    """Return the body as `model`; an empty body counts as `{}`."""
    if request.headers.get("content-length") == "0" or not _has_body(request):
        return checked(model, {})
    return checked(model, await read_json(request))


def _has_body(request: Request) -> bool:
    return "content-length" in request.headers or "transfer-encoding" in request.headers
