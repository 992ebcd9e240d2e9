"""The OpenAPI document: spectree walks the routes and turns types into schemas; guards and refusals are added here."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from flask import Flask
from spectree import SecurityScheme, SpecTree
from spectree.metadata import FunctionDecorator
from spectree.model_adapter import get_msgspec_model_adapter
from spectree.models import SecuritySchemeData
from spectree.response import Response

from edge_runtime.contract.names import NAME_PATTERN
from edge_runtime.contract.problem import MEDIA_TYPE
from sync_server.access.guard import guard_of
from sync_server.access.sessions import SESSION_COOKIE
from sync_server.access.tokens import KINDS
from sync_server.apidoc.answers import ProblemAnswer
from sync_server.apidoc.describe import JSON, Description, description_of

SESSION = "session"
_PROBLEMS = {
    400: "Malformed", 401: "No valid token or log-in", 403: "Not allowed", 404: "Not there", 409: "Not in this state",
    413: "Too large", 415: "Another media type", 422: "Refused", 429: "Too many requests", 503: "Not available now",
    507: "The server's disk is full",
}  # fmt: skip
_NUMBER = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_PATHS: dict[str, dict[str, Any]] = {
    "device_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "channel": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
    "incident_id": _NUMBER,
    "webhook_id": _NUMBER,
}
_DESCRIPTION = (
    "Refusals are application/problem+json with a code for machines and advice for people. Every answer carries "
    "X-Request-Id. Requests with a log-in's cookie that change something need its CSRF token as X-CSRF-Token."
)


class _Spec(SpecTree):
    """spectree, told by our descriptions instead of by its own decorator, which would wrap and call the views."""

    def bypass(self, func: Any) -> bool:
        """Leave out what is not described."""
        return description_of(func) is None

    def get_function_metadata(self, func: Any) -> FunctionDecorator | None:
        """Return what spectree writes of a view."""
        described = description_of(func)
        if described is None:
            return None
        answers = {f"HTTP_{status}": kind for status, kind in described.answers.items() if kind is not None}
        empty = [f"HTTP_{status}" for status, kind in described.answers.items() if kind is None]
        response = Response(*empty, **answers)
        response.bind_model_adapter(self.model_adapter)
        for kind in (*answers.values(), ProblemAnswer):
            self._add_model(kind, mode="serialization")
        metadata = FunctionDecorator(resp=response, tags=(described.tag,), operation_id=func.__name__)
        if described.query is not None:
            metadata.query = self._add_model(described.query)
        if described.body is not None:
            metadata.json = self._add_model(described.body)
        return metadata


def _name(model: Any) -> str:
    """The name of a type among the schemas; a union is named after its first member."""
    return str(getattr(model, "__name__", None) or f"Any{model.__args__[0].__name__}")


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of an app's described routes.

    Args:
        app: The application, with every blueprint registered.
    """
    bearers = [
        SecurityScheme(
            name=name,
            data=SecuritySchemeData(type="http", scheme="bearer", description=f"A token of a {name}: st_{kind}_..."),  # type: ignore[arg-type]
        )
        for kind, name in KINDS.items()
    ]
    cookie = SecuritySchemeData(type="apiKey", name=SESSION_COOKIE, field_in="cookie", description="A log-in.")  # type: ignore[arg-type]
    spec = _Spec(
        "flask", model_adapter=get_msgspec_model_adapter(), annotations=False, title="Stella Edge sync server",
        version=version("stella-edge"), description=_DESCRIPTION,
        security_schemes=[*bearers, SecurityScheme(name=SESSION, data=cookie)],
        naming_strategy=_name, nested_naming_strategy=lambda _parent, child: child,
    )  # fmt: skip
    with app.app_context():
        found: dict[str, Any] = spec.spec
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        described = description_of(view)
        if described is None:
            continue
        path, _ = spec.backend.parse_path(rule, None)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            _complete(found["paths"][path][method.lower()], view, described)
    return found


def _complete(operation: dict[str, Any], view: Any, described: Description) -> None:
    """Add to one operation who may call it, how it refuses, and media types that are not JSON."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            parameter["schema"] = _PATHS[parameter["name"]]
    operation["security"] = []
    problems = {400, 503, *described.problems}
    if guarded := guard_of(view):
        operation["security"] = [{KINDS[kind]: []} for kind in guarded.kinds] + (
            [{SESSION: []}] if guarded.session else []
        )
        problems |= {401, 403}
    if any(parameter["in"] == "path" for parameter in operation["parameters"]):
        problems |= {404, 422}
    if described.query is not None:
        problems |= {422}
    if described.body is not None:
        problems |= {413, 415, 422, 507}
    for status in sorted(problems):
        schema = {"$ref": f"#/components/schemas/{ProblemAnswer.__name__}"}
        operation["responses"][str(status)] = {
            "description": _PROBLEMS[status], "content": {MEDIA_TYPE: {"schema": schema}},
        }  # fmt: skip
    if described.body_type != JSON:
        content = operation["requestBody"]["content"]
        content[described.body_type] = content.pop(JSON)
    if described.answer_type != JSON:
        for status in described.answers:
            content = operation["responses"][str(status)]["content"]
            content[described.answer_type] = content.pop(JSON)
