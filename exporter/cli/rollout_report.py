"""A rollout's progress in sentences, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edge_runtime.contract import checks
from edge_runtime.contract.rollout import Rollout
from edge_runtime.errors import ContractError
from exporter.cli.rollout import describe_rollout

SHOWN = 5


def describe_progress(value: Mapping[str, Any]) -> list[str]:
    """Return lines on how a rollout goes.

    Args:
        value: What ``GET /api/channels/<channel>/progress`` answered.

    Raises:
        ContractError: The answer has another form.
    """
    try:
        return _lines(value)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ContractError(
            f"The server's answer on the progress has another form than this program knows ({error!r}).",
            advice="Use an exporter of the server's version, or --json.",
        ) from error


def _lines(value: Mapping[str, Any]) -> list[str]:
    rollout = Rollout.from_dict(checks.table(checks.get(value, "rollout"), "rollout"))
    lines = [describe_rollout(str(value.get("channel")), rollout)]
    run, plan = value.get("run"), value.get("plan")
    if isinstance(run, Mapping):
        lines += _standing(run, plan if isinstance(plan, Mapping) else None)
    if value.get("looks"):
        lines += _gates(value["looks"][-1])
    if isinstance(value.get("maintenance"), Mapping):
        lines += _devices(value["maintenance"])
    return lines


def _standing(run: Mapping[str, Any], plan: Mapping[str, Any] | None) -> Iterator[str]:
    if plan is None:
        yield "  no plan: it moves by hand"
    else:
        yield f"  stage {run['stage'] + 1} of {len(plan['stages'])}, watched for {run['watched_minutes']:g} minutes"
    if run.get("outcome"):
        yield f"  ended: {str(run['outcome']).replace('_', ' ')} at {run['ended_at']}"
    if run.get("waits_for"):
        yield f"  waits for {run['waits_for']}"
    if run.get("trouble"):
        yield f"  in trouble: {run['trouble']}"


def _gates(look: Mapping[str, Any]) -> Iterator[str]:
    yield f"  gates at {look['at']}: {look['verdict']}"
    for gate in look["gates"]:
        yield f"    {gate['gate']:10s} {gate['verdict']:8s} {gate['why']}"


def _devices(maintenance: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  {maintenance['running']} of {maintenance['reachable']} reachable devices run the release,"
        f" {maintenance['overdue']} are overdue"
    )
    if maintenance.get("publish_to_95_seconds") is not None:
        yield f"  95 % ran it {float(maintenance['publish_to_95_seconds']) / 3600:.1f} hours after it was published"
    for entry in maintenance["refusals"]:
        yield f"  {entry['devices']} devices: {entry['outcome']}, {entry['reason'] or 'no reason given'}"
    for device in maintenance["overdue_devices"][:SHOWN]:
        yield (
            f"    {device['id']} runs {device['active_release'] or 'nothing'} instead of {device['wanted']}"
            f" since {device['since']}"
        )
