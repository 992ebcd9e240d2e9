"""The pages that people look at: fleet, incidents, one incident, devices, one device.

Rendered on the server; a script only draws the plots, whose numbers stand in tables as well. What a page shows is a
bounded number of queries, whatever the fleet's size.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, redirect, render_template, request
from sqlalchemy import text
from werkzeug.wrappers import Response as BaseResponse

from edge_runtime.contract import routes
from edge_runtime.errors import ContractError
from sync_server.access.guard import current_actor, login_required
from sync_server.access.routes import safe_next
from sync_server.advice.service import current_desk
from sync_server.anomalies.filters import Filters
from sync_server.anomalies.reading import Page, list_page, one_incident
from sync_server.anomalies.status import MAX_ID, change_status
from sync_server.dashboard import formats, plots
from sync_server.dashboard.drift import drift
from sync_server.dashboard.figures import TrendQuery, trends
from sync_server.dashboard.kept import fleet_state
from sync_server.db import session_scope, utc_now
from sync_server.devices.listing import FLAGS, DeviceFilters, cohorts, list_devices
from sync_server.devices.models import Device
from sync_server.devices.reading import device_detail, find_device
from sync_server.errors import RequestError
from sync_server.paging import decode_cursor

blueprint = Blueprint(
    "dashboard", __name__, template_folder="templates", static_folder="static", static_url_path="/static"
)
for _name, _filter in formats.FILTERS.items():
    blueprint.add_app_template_filter(_filter, _name)

RANGES = ((24, "24 hours"), (168, "7 days"), (24 * 30, "30 days"), (24 * 90, "90 days"), (24 * 365, "a year"))
FLAG_NAMES = (
    ("stale", "Expired metadata"),
    ("cloned", "Cloned"),
    ("dead_letters", "Dead letters"),
    ("update_refused", "Update refused"),
)
_LISTED = 50
_LATEST = 6
_SIGNALS = text("""
    SELECT DISTINCT signal FROM (SELECT signals FROM incidents ORDER BY listed_at_ms DESC, id DESC LIMIT 200) AS newest,
           unnest(newest.signals) AS signal ORDER BY signal LIMIT 200
""")


@blueprint.app_context_processor
def _about_the_page() -> dict[str, object]:
    """Tell every template who is logged in and where in the house it is."""
    actor = g.get("actor")
    section = "/" + request.path.split("/")[1]
    return {"operator": actor.label if actor else None, "here": section, "may_decide": actor and actor.kind == "ops"}


@blueprint.after_request
def _keep_no_copy(response: Response) -> Response:
    """Keep pages out of caches, unlike static files: they are one operator's, and soon old."""
    if response.mimetype == "text/html":
        response.headers.setdefault("Cache-Control", "no-store")
    return response


@blueprint.get("/")
@login_required
def fleet() -> str:
    """Show the fleet: counts, anomalies over time, releases, trouble, latest incidents."""
    query = TrendQuery.from_query(request.args)
    now = utc_now()
    with session_scope() as session:
        trend = trends(session, query, now=now)
        return render_template(
            "fleet.html",
            stats=fleet_state(session),
            trend=trend,
            drift=drift(session, now=now),
            anomalies=plots.count_plot(trend["buckets"], trend["bucket_ms"], "anomalous", "anomalous windows"),
            incidents=plots.count_plot(trend["buckets"], trend["bucket_ms"], "incidents", "incidents", "second"),
            query=query,
            ranges=RANGES,
            flags=FLAG_NAMES,
            cohorts=cohorts(session),
            latest=list_page(session, Filters(), limit=_LATEST, after=None).items,
        )


@blueprint.get("/incidents")
@login_required
def incidents() -> str | tuple[str, int]:
    """List incidents with filters, a page at a time."""
    form = {name: request.args.get(name, "").strip() for name in _FORM}
    problem, page = None, Page([], None)
    with session_scope() as session:
        try:
            filters = _filters(form)
            after = decode_cursor(filters, request.args.get("cursor", ""))
            page = list_page(session, filters, limit=_LISTED, after=after)
        except ContractError as error:
            problem = f"{error.message} {error.advice}".strip()
        given = {name: value for name, value in form.items() if value}
        shown = render_template(
            "incidents.html",
            page=page,
            problem=problem,
            form=form,
            filtered=bool(given),
            cohorts=cohorts(session),
            signals=list(session.scalars(_SIGNALS)),
            here_url=request.full_path.rstrip("?"),
            csv_url=None if problem else _url(routes.INCIDENTS_CSV, _query(form)),
            first_url=_url("/incidents", given) if request.args.get("cursor") else None,
            next_url=_url("/incidents", {**given, "cursor": page.next}) if page.next else None,
        )
    return (shown, 422) if problem else shown


@blueprint.get(f"/incidents/<int(max={MAX_ID}):incident_id>")
@login_required
def incident(incident_id: int) -> str:
    """Show one incident and what people decided about it."""
    with session_scope() as session:
        found = one_incident(session, incident_id)
    advice = current_desk().advise(incident_id)
    return render_template("incident.html", incident=found, advice=advice, shares=plots.signal_shares([found]))


@blueprint.post(f"/incidents/<int(max={MAX_ID}):incident_id>/status")
@login_required
def decide(incident_id: int) -> BaseResponse:
    """Set an incident's status from the form, and go back to where the form was."""
    actor = current_actor()
    if actor.kind != "ops":
        raise RequestError(403, "wrong_kind", "A viewer may look, and not decide.", advice="Ask an operator.")
    with session_scope() as session:
        change_status(
            session, incident_id, request.form.get("status", ""), request.form.get("note", ""), actor=actor.label
        )
    return redirect(safe_next(request.form.get("next")), 303)


@blueprint.get("/devices")
@login_required
def devices() -> str:
    """List devices, most recently seen first, a page at a time."""
    form = {name: request.args.get(name, "").strip() for name in ("flag", "cohort", "name")}
    given = {name: value for name, value in form.items() if value}
    with session_scope() as session:
        rows, following = list_devices(session, DeviceFilters.from_query(form), request.args.get("after", ""))
        return render_template(
            "devices.html",
            rows=rows,
            form=form,
            filtered=bool(given),
            flags=[*FLAG_NAMES, *((flag, flag.capitalize()) for flag in FLAGS if flag not in dict(FLAG_NAMES))],
            cohorts=cohorts(session),
            now=utc_now(),
            first_url=_url("/devices", given) if request.args.get("after") else None,
            next_url=_url("/devices", {**given, "after": following}) if following else None,
        )


@blueprint.get("/devices/<device_id>")
@login_required
def device(device_id: str) -> str:
    """Show one device: scores over time, state, contributions, incidents, gaps, events."""
    with session_scope() as session:
        found = find_device(session, device_id)
        detail = device_detail(session, device_id)
    bucket_ms, timeline = plots.timeline(detail["timeline"], detail["points"])
    return render_template(
        "device.html",
        device=found,
        detail=detail,
        timeline=timeline,
        description=f"One bar is {formats.duration(bucket_ms)}, by the device's clock (UTC).",
        anomalous=plots.count_plot(timeline, bucket_ms, "anomalous", "anomalous windows"),
        scores=plots.score_plot(timeline, bucket_ms),
        shares=plots.signal_shares(detail["incidents"]),
        runtime=_runtime(found),
        insecure=bool((found.status or {}).get("insecure_http")),
    )


_FORM = ("status", "cohort", "signal", "minimum_score", "from", "to", "device")


def _filters(form: dict[str, str]) -> Filters:
    """Turn the form's fields into filters; a day given as the end is included.

    Raises:
        ContractError: A field makes no sense.
    """
    return Filters.from_query(_query(form))


def _query(form: dict[str, str]) -> dict[str, str]:
    """Return the form's fields as the API's parameters, without those that are empty."""
    query = {name: form[name] for name in ("status", "cohort", "signal", "minimum_score", "device") if form[name]}
    if form["from"]:
        query["from_ms"] = str(_day_ms(form["from"]))
    if form["to"]:
        query["to_ms"] = str(_day_ms(form["to"]) + plots.DAY_MS)
    return query


def _day_ms(content: str) -> int:
    try:
        moment = datetime.strptime(content, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise ContractError(f"{content[:20]!r} is not a date.", advice="Write it as 2026-11-23.") from error
    return max(0, (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


def _url(path: str, query: dict[str, str]) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _runtime(device: Device) -> str:
    """Return the versions that a device reported, as one line of text."""
    runtime = (device.status or {}).get("runtime")
    known: dict[str, Any] = runtime if isinstance(runtime, dict) else {}
    return ", ".join(f"{name} {value}" for name, value in known.items() if isinstance(value, str))[:300]
