"""Where the doors of a server are. Paths are relative to the server's URL."""

from __future__ import annotations

METADATA = "/repository/metadata/"
TARGETS = "/repository/targets/"
DEVICES = "/api/devices"
RESULTS = "/api/results"
DEVICE_STATUS = "/api/device-status"
PUBLISH = "/api/publish"
CHANNELS = "/api/channels/"
ANOMALIES = "/api/anomalies"
INCIDENTS = "/api/incidents/"
STATS = "/api/dashboard/stats"
TRENDS = "/api/dashboard/trends"
DRIFT = "/api/dashboard/drift"
INCIDENTS_CSV = "/api/incidents.csv"
AUDIT = "/api/audit"
HEALTH = "/health"


def root_by_digest(digest: str) -> str:
    """Return the path of the root metadata with a SHA-256 digest, which first trust begins with."""
    return f"{METADATA}root-{digest}.json"
