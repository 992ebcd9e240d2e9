"""How a server says no: application/problem+json (RFC 9457) with a short code and advice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal.

    Attributes:
        status: HTTP status.
        code: Short code for machines, such as ``token_revoked``.
        title: What kind of problem, the same for every occurrence.
        detail: One sentence: what happened, to what.
        advice: One sentence: what to do next.
    """

    status: int
    code: str
    title: str
    detail: str
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON body; ``type`` is a URN, since no page on the web is promised behind it."""
        return {
            "type": f"urn:stella-edge:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "advice": self.advice,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], *, status: int) -> Problem:
        """Read a body leniently: it is only shown to a person, whatever a server or a proxy put into it.

        Args:
            value: The parsed body.
            status: The status of the HTTP answer, which counts.
        """

        def shown(field: str, most: int) -> str:
            item = value.get(field)
            return "".join(c for c in item if c.isprintable())[:most] if isinstance(item, str) else ""

        return cls(status, shown("code", 64), shown("title", 200), shown("detail", 500), shown("advice", 500))
