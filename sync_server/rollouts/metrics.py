"""What Prometheus is told of rollouts. Gauges are set by whoever moves it; the newest value counts."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

SHARE = Gauge(
    "stella_rollout_share",
    "Share of a channel's devices that is in, 0 to 1.",
    ["channel"],
    multiprocess_mode="mostrecent",
)
STATE = Gauge(
    "stella_rollout_state",
    "1 for the state that a channel's rollout is in.",
    ["channel", "state"],
    multiprocess_mode="mostrecent",
)
STAGE = Gauge(
    "stella_rollout_stage", "Number of the plan's stage, from 0.", ["channel"], multiprocess_mode="mostrecent"
)
DEVICES = Gauge(
    "stella_rollout_devices",
    "Devices that count in the present stage, by assignment.",
    ["channel", "assignment"],
    multiprocess_mode="mostrecent",
)
OVERDUE = Gauge(
    "stella_rollout_overdue_devices",
    "Reachable devices that do not run what they should.",
    ["channel"],
    multiprocess_mode="mostrecent",
)
LOOKS = Counter("stella_rollout_looks_total", "Looks at the gates.", ["channel", "verdict"])
TRIPS = Counter("stella_rollout_gate_trips_total", "Gates that tripped.", ["channel", "gate"])
TROUBLE = Counter("stella_rollout_trouble_total", "Turns in which a rollout could not be moved.", ["channel"])
