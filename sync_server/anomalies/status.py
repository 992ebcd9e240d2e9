"""What people decide about incidents: open, acknowledged or resolved, by whom, when and why."""

from __future__ import annotations

from sqlalchemy.orm import Session

from edge_runtime.contract import checks
from edge_runtime.errors import ContractError
from sync_server.access.audit import audit
from sync_server.db import utc_now
from sync_server.errors import RequestError
from sync_server.ingest.models import STATUSES, Incident, IncidentStatusChange

MAX_NOTE_CHARACTERS = 1_000
MAX_ID = 2**63 - 1


def change_status(session: Session, incident_id: int, status: str, note: str, *, actor: str) -> Incident:
    """Set an incident's status and keep who did it and why.

    Setting the status that it has already adds a note and changes nothing else. What the device sends later never
    changes what a person decided.

    Args:
        session: The open transaction.
        incident_id: Its number.
        status: ``open``, ``acknowledged`` or ``resolved``.
        note: Why; runs of white space become one space.
        actor: Who, for the history and the audit trail.

    Returns:
        The incident as it is now.

    Raises:
        ContractError: Another status, or a note that is empty or too long.
        RequestError: 404 when there is no such incident.
    """
    note = checks.text(" ".join(note.split()), "note", most=MAX_NOTE_CHARACTERS)
    if status not in STATUSES:
        raise ContractError(f"The status must be one of {', '.join(STATUSES)}.")
    if not note:
        raise ContractError("A change of status needs a note.", advice="Say in a few words why.")
    incident = session.get(Incident, incident_id, with_for_update=True) if incident_id <= MAX_ID else None
    if incident is None:
        raise RequestError(
            404, "incident_not_found", f"There is no incident {incident_id}.", advice="Check the number."
        )
    now = utc_now()
    session.add(
        IncidentStatusChange(
            incident_id=incident.id,
            changed_at=now,
            changed_by=actor,
            old_status=incident.status,
            new_status=status,
            note=note,
        )
    )
    detail: dict[str, object] = {"from": incident.status, "to": status, "note": note}
    audit(session, actor, "incident.status", str(incident.id), detail)
    incident.status, incident.status_by, incident.status_note, incident.status_at = status, actor, note, now
    return incident
