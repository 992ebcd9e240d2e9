"""Types that only the description needs: the refusal, and texts with rules that several rooms share."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from edge_runtime.contract.checks import LATEST_MS
from edge_runtime.contract.names import MAX_COHORT_CHARACTERS, NAME_PATTERN

Name = Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")]
Hex32 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Hex64 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
# No control characters; edge_runtime.contract.checks.text has the whole rule.
PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
Cohort = Annotated[str, Meta(max_length=MAX_COHORT_CHARACTERS, pattern=PRINTABLE)]
Moment = Annotated[int, Meta(ge=0, le=LATEST_MS)]
# In queries an empty parameter is no restriction, as forms send them.
NameOrEmpty = Annotated[str, Meta(pattern=f"^({NAME_PATTERN})?$")]
Hex32OrEmpty = Annotated[str, Meta(pattern="^([0-9a-f]{32})?$")]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Object = dict[str, Any]


class ProblemAnswer(msgspec.Struct):
    """How the server says no (RFC 9457); further members hold numbers that a program needs."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    advice: str
    request_id: str
