"""Tables of the rollouts room, as plain SQL that the first migration runs as the owner. ``models`` maps them."""

from __future__ import annotations

CHANNELS = """
CREATE TABLE channels (
    name        text CONSTRAINT pk_channels PRIMARY KEY,
    rollout_id  bigint NOT NULL,
    model       text NOT NULL,
    release     bigint NOT NULL,
    previous    bigint,
    share       bigint NOT NULL CONSTRAINT ck_channels_share CHECK (share BETWEEN 0 AND 10000),
    salt        text NOT NULL,
    state       text NOT NULL CONSTRAINT ck_channels_state CHECK (state IN ('running', 'paused', 'rolled_back')),
    cohorts     jsonb,
    updated_at  timestamptz NOT NULL
)
"""

STATEMENTS: tuple[str, ...] = ("CREATE SEQUENCE rollout_ids", CHANNELS)
