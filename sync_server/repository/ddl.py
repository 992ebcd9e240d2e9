"""Tables of the repository room, as plain SQL that the first migration runs as the owner. ``models`` maps them."""

from __future__ import annotations

# Only the newest timestamp is kept; every root, targets and snapshot that was ever valid stays for the record.
TUF_METADATA = """
CREATE TABLE tuf_metadata (
    role       text NOT NULL CONSTRAINT ck_tuf_metadata_role
               CHECK (role IN ('root', 'targets', 'snapshot', 'timestamp')),
    version    bigint NOT NULL CONSTRAINT ck_tuf_metadata_version CHECK (version > 0),
    body       bytea NOT NULL,
    digest     text NOT NULL,
    stored_at  timestamptz NOT NULL,
    CONSTRAINT pk_tuf_metadata PRIMARY KEY (role, version)
)
"""

BUNDLES = """
CREATE TABLE bundles (
    digest          text CONSTRAINT pk_bundles PRIMARY KEY
                    CONSTRAINT ck_bundles_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
    path            text NOT NULL,
    model           text NOT NULL,
    version         text NOT NULL,
    cohort          text,
    release_number  bigint NOT NULL,
    size            bigint NOT NULL,
    size_unpacked   bigint NOT NULL,
    signer          text NOT NULL,
    manifest        jsonb NOT NULL,
    published_at    timestamptz NOT NULL
)
"""

STATEMENTS: tuple[str, ...] = (
    TUF_METADATA,
    "CREATE INDEX ix_tuf_metadata_digest ON tuf_metadata (digest)",
    BUNDLES,
    "CREATE INDEX ix_bundles_path ON bundles (path)",
    "CREATE INDEX ix_bundles_model_release_number ON bundles (model, release_number)",
)
