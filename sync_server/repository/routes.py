"""``/repository/*`` for every TUF client, and ``/api/publish`` for release engineers."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import msgspec
from flask import Blueprint, Response, request
from sqlalchemy import select
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestedRangeNotSatisfiable
from werkzeug.wsgi import wrap_file

from sync_server.access.guard import current_actor, require_token
from sync_server.apidoc.answers import Object
from sync_server.apidoc.describe import describe
from sync_server.app_state import get_blobs, get_config, get_online_key
from sync_server.db import session_scope, utc_now
from sync_server.errors import RequestError
from sync_server.http import json_response, problem_response
from sync_server.repository import metadata
from sync_server.repository.models import StoredBundle, TufMetadata
from sync_server.repository.online_key import public_pem
from sync_server.repository.publish import Publication, publish
from sync_server.rollouts.models import rollouts_by_channel

blueprint = Blueprint("repository", __name__)


class PublishBody(msgspec.Struct):
    """Parts named ``metadata/N.root.json``, ``metadata/N.targets.json``, ``targets/MODEL/VERSION/COHORT.bundle``."""


class Published(msgspec.Struct):
    """What a publication changed."""

    targets_version: int
    root_version: int
    added: list[str]
    withdrawn: list[str]


class Standing(msgspec.Struct):
    """Where the repository stands."""

    root_version: int | None
    targets_version: int | None
    online_key: str
    channels: Object


_SHORT = "public, max-age=60"
_FOR_EVER = "public, max-age=31536000, immutable"
_VERSIONED = re.compile(r"([1-9][0-9]{0,9})\.(root|targets|snapshot)\.json")
_ROOT_DIGEST = re.compile(r"root-([0-9a-f]{64})\.json")
_TARGET = re.compile(r"(?P<folder>[a-z0-9._-]+/[a-z0-9._-]+)/(?P<digest>[0-9a-f]{64})\.(?P<name>[a-z0-9]+\.bundle)")
_PART = re.compile(r"metadata/([1-9][0-9]{0,9})\.(root|targets)\.json")
_PARSER_BYTES = 1 << 20
_PARTS_AT_MOST = 1_100  # 1,000 bundles, targets.json, and a century of roots


@blueprint.get("/repository/metadata/<name>")
def get_metadata(name: str) -> Response:
    """Serve signed metadata; ``timestamp.json`` and roots for a minute, what carries a version for ever.

    404 (cacheable for a minute as well) is how TUF clients learn that there is no newer root.
    """
    with session_scope() as session:
        row, cache = _find(session, name)
    if row is None:
        response = problem_response(404, "not_found", f"There is no metadata {name[:100]}.")
        response.headers["Cache-Control"] = _SHORT
        return response
    response = Response(row.body, content_type="application/json")
    response.set_etag(row.digest)
    response.headers["Cache-Control"] = cache
    response.last_modified = row.stored_at
    return cast("Response", response.make_conditional(request))


def _find(session: Any, name: str) -> tuple[TufMetadata | None, str]:
    """Return the metadata of a file name, and how long caches may keep it."""
    if name == "timestamp.json":
        return metadata.latest(session, "timestamp"), _SHORT
    if by_digest := _ROOT_DIGEST.fullmatch(name):
        return metadata.root_by_digest(session, by_digest[1]), _FOR_EVER
    if versioned := _VERSIONED.fullmatch(name):
        row = metadata.at_version(session, versioned[2], int(versioned[1]))
        return row, _SHORT if versioned[2] == "root" else _FOR_EVER
    return None, _SHORT


@blueprint.get("/repository/targets/<path:name>")
def get_target(name: str) -> Response:
    """Serve a bundle under its consistent-snapshot name ``MODEL/VERSION/<sha256>.COHORT.bundle``; one range at most."""
    match = _TARGET.fullmatch(name)
    row = None
    if match:
        with session_scope() as session:
            row = session.scalars(
                select(StoredBundle).where(
                    StoredBundle.digest == match["digest"],
                    StoredBundle.path == f"{match['folder']}/{match['name']}",
                )
            ).one_or_none()
    if row is None:
        raise RequestError(404, "not_found", f"There is no bundle {name[:200]}.", advice="Refresh the metadata.")
    reader = get_blobs().open(row.digest)
    response = Response(wrap_file(request.environ, reader), content_type="application/octet-stream")
    response.direct_passthrough = True
    response.call_on_close(reader.close)  # 304 and HEAD never touch the body, which would close it otherwise
    response.content_length = row.size
    response.set_etag(row.digest)
    response.headers["Cache-Control"] = _FOR_EVER
    response.last_modified = row.published_at
    try:
        return cast("Response", response.make_conditional(request, accept_ranges=True, complete_length=row.size))
    except RequestedRangeNotSatisfiable:
        response.close()
        raise


@blueprint.post("/api/publish")
@require_token("pub")
@describe(
    "repository", body=PublishBody, body_type="multipart/form-data", answers={200: Published, 201: Published},
    problems=(409,),
)  # fmt: skip
def post_publish() -> Response:
    """Take over a release: parts ``metadata/N.root.json``, ``metadata/N.targets.json``, ``targets/<path>``."""
    request.max_content_length = get_config().max_publish_bytes
    request.max_form_parts = _PARTS_AT_MOST
    # Werkzeug counts what its parser holds of a file as well: a chunk of 64 KiB and what is left of the one before.
    request.max_form_memory_size = _PARSER_BYTES
    if request.mimetype != "multipart/form-data":
        raise RequestError(
            415, "unsupported_media_type", "A publication is multipart/form-data.", advice="Run: exporter publish"
        )
    sent = _read_parts()
    with session_scope() as session:
        done = publish(session, get_blobs(), get_online_key(), sent, actor=current_actor().label, now=utc_now())
    body = {
        "targets_version": done.targets_version,
        "root_version": done.root_version,
        "added": done.added,
        "withdrawn": done.withdrawn,
    }
    return json_response(body, 200 if done.repeated else 201)


def _read_parts() -> Publication:
    """Sort the request's parts by their names; bundles stay in their temporary files until they are needed."""
    roots: dict[int, bytes] = {}
    targets: dict[int, bytes] = {}
    bundles: dict[str, Callable[[], bytes]] = {}
    for name, part in request.files.items(multi=True):
        match = _PART.fullmatch(name)
        if match:
            version, kind = int(match[1]), roots if match[2] == "root" else targets
            if version in kind or (kind is targets and targets):
                raise RequestError(422, "bad_part", f"The part {name} comes twice, or is one targets.json too many.")
            kind[version] = part.stream.read(metadata.MAX_BYTES[match[2]] + 1)
        elif name.startswith("targets/") and name.removeprefix("targets/") not in bundles:
            bundles[name.removeprefix("targets/")] = partial(_read, part)
        else:
            raise RequestError(
                422, "bad_part", f"The part {name[:200]!r} is no file of a repository, or comes twice.",
                advice="Send metadata/N.root.json, metadata/N.targets.json, targets/MODEL/VERSION/COHORT.bundle.",
            )  # fmt: skip
    if request.form:
        raise RequestError(422, "bad_part", "A part has no file name.", advice="Send every part as a file.")
    if not roots and not targets:
        raise RequestError(422, "nothing_sent", "The request holds no metadata.", advice="Run: exporter publish")
    return Publication(sorted(roots.items()), next(iter(targets.items()), None), bundles)


def _read(part: FileStorage) -> bytes:
    part.stream.seek(0)
    return part.stream.read()


@blueprint.get("/api/publish")
@require_token("pub")
@describe("repository", answers={200: Standing})
def get_publish() -> Response:
    """Tell a release engineer where the repository stands."""
    with session_scope() as session:
        versions = metadata.versions(session)
        channels = {name: rollout.to_dict() for name, rollout in rollouts_by_channel(session).items()}
    return json_response(
        {
            "root_version": versions.get("root"),
            "targets_version": versions.get("targets"),
            "online_key": public_pem(get_online_key()),
            "channels": channels,
        }
    )
