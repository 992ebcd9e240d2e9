"""How a room describes a route: with a decorator that keeps a note on the view and calls nothing.

Describing costs no request anything, and what is checked stays where it is read::

    @blueprint.get("/api/anomalies")
    @require_token("ops", "view", session=True)
    @describe("results", query=AnomalyQuery, answers={200: Page})
    def anomalies() -> Response: ...

The summary is the view's docstring, who may call it comes from its guard, and the refusals that follow from both
(401, 403, 404, 413, 415, 422, 503) are added by themselves. ``query``, ``body`` and answers are msgspec types or
dataclasses. A test fails for a route of ``/api/`` that is not described.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

View = TypeVar("View", bound=Callable[..., Any])

JSON = "application/json"
_MARK = "api_description"


@dataclass(frozen=True, slots=True)
class Description:
    """What a route says of itself beyond its docstring and its guard.

    Attributes:
        tag: The group it is shown in.
        query: The type of its parameters, None when it has none.
        body: The type of its body, None when it has none.
        body_type: The body's media type.
        answers: For each status that is a success the type of the answer, None for an empty one.
        answer_type: The media type of the answers.
        problems: Statuses of refusals that neither the guard nor the body explain, such as 409.
    """

    tag: str
    query: Any = None
    body: Any = None
    body_type: str = JSON
    answers: Mapping[int, Any] = field(default_factory=dict)
    answer_type: str = JSON
    problems: tuple[int, ...] = ()


def describe(
    tag: str,
    *,
    answers: Mapping[int, Any],
    query: Any = None,
    body: Any = None,
    body_type: str = JSON,
    answer_type: str = JSON,
    problems: tuple[int, ...] = (),
) -> Callable[[View], View]:
    """Describe a view; goes below the guard. The arguments are those of :class:`Description`."""
    described = Description(tag, query, body, body_type, answers, answer_type, problems)

    def mark(view: View) -> View:
        setattr(view, _MARK, described)
        return view

    return mark


def description_of(view: Callable[..., Any]) -> Description | None:
    """Return a view's description, None when it has none. Guards keep the attributes of what they guard."""
    return cast("Description | None", getattr(view, _MARK, None))
