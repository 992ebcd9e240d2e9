"""Names that travel: models, versions, channels, cohorts and the paths of bundles.

Targets are found by their ``custom`` field, never by parsing a path; the path is for people and caches.
"""

from __future__ import annotations

import hashlib
import re

from edge_runtime.errors import ContractError

NAME_PATTERN = r"[a-z0-9][a-z0-9._-]{0,63}"
_NAME = re.compile(NAME_PATTERN)

DEFAULT_COHORT_PART = "default"
MAX_COHORT_CHARACTERS = 128


def check_name(kind: str, name: object) -> str:
    """Return a model, version or channel name that follows the rule.

    Args:
        kind: What is named, for the error: ``model``, ``version`` or ``channel``.
        name: The candidate.

    Returns:
        The name.

    Raises:
        ContractError: The name breaks ``[a-z0-9][a-z0-9._-]{0,63}``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ContractError(
            f"{name!r} is not a {kind} name.",
            advice="Use 1 to 64 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit.",
            kind=kind,
        )
    return name


def cohort_part(cohort: str | None) -> str:
    """Return the file-name part of a cohort: ``default``, or 16 hex digits, since cohorts are free text.

    Args:
        cohort: The cohort, or None for the default bundle of all devices.
    """
    if cohort is None:
        return DEFAULT_COHORT_PART
    return hashlib.sha256(cohort.encode()).hexdigest()[:16]


def target_path(model: str, version: str, cohort: str | None) -> str:
    """Return the TUF target path ``MODEL/VERSION/COHORT.bundle``.

    Raises:
        ContractError: The model or version breaks the naming rule.
    """
    return f"{check_name('model', model)}/{check_name('version', version)}/{cohort_part(cohort)}.bundle"
