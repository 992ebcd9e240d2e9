"""Tables of the devices room, as plain SQL that the first migration runs as the owner. ``models`` maps them."""

from __future__ import annotations

ENROLMENTS = """
CREATE TABLE enrolments (
    token_id      bigint NOT NULL,
    model         text NOT NULL,
    channel       text NOT NULL,
    uses_allowed  integer NOT NULL,
    created_by    text NOT NULL,
    CONSTRAINT pk_enrolments PRIMARY KEY (token_id),
    CONSTRAINT ck_enrolments_uses_allowed CHECK (uses_allowed > 0),
    CONSTRAINT fk_enrolments_token_id FOREIGN KEY (token_id) REFERENCES access_tokens (id)
)
"""

DEVICES = """
CREATE TABLE devices (
    id               text NOT NULL,
    installation_id  text NOT NULL,
    enrolment_id     bigint NOT NULL,
    name             text,
    cohort           text,
    kind             text NOT NULL,
    model            text NOT NULL,
    channel          text NOT NULL,
    created_at       timestamptz NOT NULL,
    last_seen_at     timestamptz NOT NULL,
    last_result_at   timestamptz,
    revoked_at       timestamptz,
    cloned_at        timestamptz,
    active_bundle    text,
    active_release   bigint,
    active_version   text,
    outbox_records   bigint,
    dead_letters     bigint,
    stale            boolean NOT NULL DEFAULT false,
    update_outcome   text,
    update_reason    text,
    status           jsonb,
    status_at        timestamptz,
    CONSTRAINT pk_devices PRIMARY KEY (id),
    CONSTRAINT ck_devices_id CHECK (id ~ '^[0-9a-f]{32}$'),
    CONSTRAINT ck_devices_installation_id CHECK (installation_id ~ '^[0-9a-f]{32}$'),
    CONSTRAINT ck_devices_kind CHECK (kind IN ('edge', 'demo')),
    CONSTRAINT uq_devices_installation_id UNIQUE (installation_id),
    CONSTRAINT fk_devices_enrolment_id FOREIGN KEY (enrolment_id) REFERENCES enrolments (token_id)
)
"""

INDEXES = (
    "CREATE INDEX ix_devices_cohort ON devices (cohort)",
    "CREATE INDEX ix_devices_last_seen_at_id ON devices (last_seen_at, id)",
)

STATEMENTS: tuple[str, ...] = (ENROLMENTS, DEVICES, *INDEXES)

# A browser (kind demo) enrols with a token that was made for one. A constant default: no rewrite of the table.
ENROLMENT_KIND: tuple[str, ...] = (
    "ALTER TABLE enrolments ADD COLUMN kind text NOT NULL DEFAULT 'edge',"
    " ADD CONSTRAINT ck_enrolments_kind CHECK (kind IN ('edge', 'demo'))",
)
