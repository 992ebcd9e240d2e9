"""The table of the advice room, as plain SQL that a migration runs as the owner. ``models`` maps it."""

from __future__ import annotations

ADVICE_TEXTS = """
CREATE TABLE advice_texts (
    pattern      text NOT NULL,
    parts        jsonb NOT NULL,
    state        text NOT NULL,
    claim        text NOT NULL,
    claimed_at   timestamptz NOT NULL,
    not_before   timestamptz NOT NULL,
    text         text,
    written_by   text,
    written_at   timestamptz,
    failures     bigint NOT NULL DEFAULT 0,
    failed_with  text,
    CONSTRAINT pk_advice_texts PRIMARY KEY (pattern),
    CONSTRAINT ck_advice_texts_state CHECK (state IN ('writing', 'written', 'failed'))
)
"""

STATEMENTS: tuple[str, ...] = (
    ADVICE_TEXTS,
    "CREATE INDEX ix_advice_texts_claimed_at ON advice_texts (claimed_at)",
)
