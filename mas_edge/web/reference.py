"""The API's own description: as OpenAPI, and as a page of plain HTML that needs neither script nor internet."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec
from litestar import Litestar

from mas_edge.web.library import Body, marked
from mas_edge.web.problems import MEDIA_TYPE, Problem

_METHODS = ("get", "post")
_REF = "#/components/schemas/{name}"


def schema_body(app: Litestar) -> Body:
    """The OpenAPI document."""
    return _kept(app, "schema", lambda: msgspec.json.encode(description(app)))


def reference_body(app: Litestar) -> Body:
    """The page."""
    return _kept(app, "reference", lambda: reference_page(description(app)).encode())


def description(app: Litestar) -> dict[str, Any]:
    """The framework's description, with what it cannot know: how we refuse, and that a token may be required."""
    schema = app.openapi_schema.to_schema()
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).update(msgspec.json.schema_components([Problem], ref_template=_REF)[1])
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{}, {"token": []}]
    for item in schema["paths"].values():
        for method in _METHODS:
            if method in item:
                _complete(item[method], method)
    return schema


def _complete(operation: dict[str, Any], method: str) -> None:
    operation["summary"] = operation.get("description", "").partition(".")[0]
    fine = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
    held = {"304": {"description": "what the client holds has not changed"}} if method == "get" else {}
    refused = {"description": "refused", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    operation["responses"] = {**fine, **held, "default": refused}


def _kept(app: Litestar, name: str, make: Any) -> Body:
    kept: dict[str, Body] = app.state.setdefault("described", {})
    if name not in kept:
        kept[name] = marked(make())
    return kept[name]


def reference_page(schema: dict[str, Any]) -> str:
    """Every operation with its parameters and answers, then every shape with its fields."""
    operations = [
        _operation(path, method, item[method])
        for path, item in sorted(schema["paths"].items())
        for method in _METHODS
        if method in item
    ]
    shapes = [_shape(name, shape) for name, shape in sorted(schema.get("components", {}).get("schemas", {}).items())]
    title = escape(schema["info"]["title"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{title}: the API</title></head><body>'
        f"<h1>{title}: the API</h1><p>{escape(schema['info'].get('description', ''))} "
        'The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<h2>Operations</h2>{''.join(operations)}<h2>Shapes</h2>{''.join(shapes)}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    rows = [
        f"<li><code>{escape(each['name'])}</code> ({escape(each['in'])}): {escape(_type(each.get('schema', {})))}"
        f"{', required' if each.get('required') else ''}. {escape(each.get('description') or '')}</li>"
        for each in operation.get("parameters", [])
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        rows.append(f"<li>body (JSON): {_link(_type(body))}</li>")
    for status, answer in sorted(operation.get("responses", {}).items()):
        content: dict[str, Any] = next(iter(answer.get("content", {}).values()), {})
        rows.append(f"<li>{escape(status)}: {_link(_type(content.get('schema', {})))}</li>")
    summary = escape(operation.get("description") or "")
    return f"<h3><code>{method.upper()} {escape(path)}</code></h3><p>{summary}</p><ul>{''.join(rows)}</ul>"


def _shape(name: str, shape: dict[str, Any]) -> str:
    required = set(shape.get("required", []))
    rows = [
        f"<li><code>{escape(field)}</code>: {_link(_type(kind))}{'' if field in required else ', optional'}</li>"
        for field, kind in shape.get("properties", {}).items()
    ]
    text = escape(shape.get("description") or "")
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{text}</p><ul>{"".join(rows)}</ul>'


def sketch(kind: type[msgspec.Struct]) -> str:
    """What JSON of this kind looks like, in one line: fields that may be left out have a question mark."""
    _, components = msgspec.json.schema_components([kind], ref_template=_REF)
    shape = components[kind.__name__]
    required = set(shape.get("required", []))
    fields = (
        f'"{name}"{"" if name in required else "?"}: {_type(field)}' for name, field in shape["properties"].items()
    )
    return f"{{{', '.join(fields)}}}"


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words; what it refers to by name."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if several := schema.get("oneOf") or schema.get("anyOf"):
        return " or ".join(_type(each) for each in several)
    if "enum" in schema:
        return " | ".join(str(each) for each in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema.get('items', {})) or 'anything'}"
    if isinstance(kind, list):
        return " or ".join(str(each) for each in kind)
    return str(kind)


def _link(text: str) -> str:
    """Names of shapes, which begin with a capital letter, lead to them."""
    words = (
        f'<a href="#{escape(word)}">{escape(word)}</a>' if word[:1].isupper() else escape(word) for word in text.split()
    )
    return " ".join(words)
