"""From a pydantic model to a schema that the API server takes as structural.

Such a schema has no references, no unions and no titles; an absent object gets the defaults of its fields only where it
has `default: {}` itself. What cannot be said in it is an error here, not a surprise at `kubectl apply`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from pydantic import BaseModel

Json = dict[str, Any]
_DROPPED: Final = ("title", "discriminator", "additionalProperties", "examples")


def structural(model: type[BaseModel], *, defaults: bool) -> Json:
    """Return the schema of a model; with `defaults` the server fills in what is not said (status has none)."""
    whole = model.model_json_schema(by_alias=True, mode="validation")
    return _schema(whole, whole.get("$defs", {}), model.__name__, defaults=defaults)


def _schema(of: Json, known: Json, path: str, *, defaults: bool) -> Json:
    of = _one(of, known, path)
    kind = of.get("type")
    if not isinstance(kind, str):
        raise TypeError(f"{path}: a structural schema needs one type, not {kind}")
    made: Json = {"description": of["description"], "type": kind} if "description" in of else {"type": kind}
    for name, value in of.items():
        if name in {"$defs", "description", "type", "properties", "items", "required", "default", *_DROPPED}:
            continue
        if name in {"exclusiveMinimum", "exclusiveMaximum"}:
            made |= {name.replace("exclusiveM", "m"): value, name: True}
        else:
            made[name] = value
    if kind == "array":
        made["items"] = _schema(of["items"], known, f"{path}[]", defaults=defaults)
    if kind == "object" and "properties" in of:
        made["properties"] = {
            name: _schema(field, known, f"{path}.{name}", defaults=defaults) for name, field in of["properties"].items()
        }
    if of.get("required"):
        made["required"] = sorted(of["required"])
    if defaults:
        default = {} if kind == "object" else of.get("default")
        made |= {} if default is None else {"default": default}
    if kind in {"string", "array"} and not made.keys() & {"maxLength", "maxItems", "enum", "format"}:
        raise TypeError(f"{path}: {kind} without a bound; what rules cost is reckoned from the longest")
    return made


def _one(of: Json, known: Json, path: str) -> Json:
    """Return a schema without references and without `or null`; its own words go before those of what it names."""
    if "const" in of:
        of = {**{name: value for name, value in of.items() if name != "const"}, "enum": [of["const"]]}
    if "anyOf" in of:
        kinds = [one for one in of["anyOf"] if one.get("type") != "null"]
        if len(kinds) != 1:
            raise TypeError(f"{path}: a structural schema has no unions")
        of = {**kinds[0], **{name: value for name, value in of.items() if name != "anyOf"}}
    if "$ref" in of:
        name = of["$ref"].rpartition("/")[2]
        of = {**_one(known[name], known, path), **{key: value for key, value in of.items() if key != "$ref"}}
    if "anyOf" in of or "allOf" in of or "oneOf" in of:
        raise TypeError(f"{path}: a structural schema has no unions")
    return of
