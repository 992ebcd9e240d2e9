"""The tables of ``edge.db``, as constants. A change here is a new ``SCHEMA_VERSION`` and a step that migrates."""

SCHEMA_VERSION = 1
# "StEd" in ASCII: tells `file` and us that this database is a device's (sqlite.org/pragma.html#pragma_application_id).
APPLICATION_ID = 0x53744564

DDL = (
    # The readings that later windows can still see; cells are float32 LE in the order of scoring_state.layout.
    """
    CREATE TABLE recent_reading (
        timestamp_ms INTEGER PRIMARY KEY,
        cells BLOB NOT NULL
    ) STRICT
    """,
    # The marks. `revision` grows with every scoring transaction, so that a second process notices the first.
    """
    CREATE TABLE scoring_state (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        revision INTEGER NOT NULL,
        bundle TEXT,
        layout TEXT,
        highest_timestamp_ms INTEGER,
        highest_clock_ms INTEGER
    ) STRICT
    """,
    """
    CREATE TABLE stream (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        id TEXT NOT NULL,
        next_sequence INTEGER NOT NULL,
        records INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT
    """,
    # `sent` is set before a record leaves: one that the server may hold is never merged into another.
    """
    CREATE TABLE outbox (
        sequence INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        observed_at_ms INTEGER NOT NULL,
        sent INTEGER NOT NULL DEFAULT 0,
        body TEXT NOT NULL
    ) STRICT
    """,
    "CREATE INDEX outbox_unsent ON outbox (sequence) WHERE sent = 0",
    # Counting 20,000 rows at every append would cost more than the append.
    """
    CREATE TRIGGER outbox_grew AFTER INSERT ON outbox BEGIN
        UPDATE stream SET records = records + 1, bytes = bytes + length(CAST(NEW.body AS BLOB));
    END
    """,
    """
    CREATE TRIGGER outbox_shrank AFTER DELETE ON outbox BEGIN
        UPDATE stream SET records = records - 1, bytes = bytes - length(CAST(OLD.body AS BLOB));
    END
    """,
    """
    CREATE TRIGGER outbox_changed AFTER UPDATE OF body ON outbox BEGIN
        UPDATE stream SET bytes = bytes - length(CAST(OLD.body AS BLOB)) + length(CAST(NEW.body AS BLOB));
    END
    """,
    """
    CREATE TABLE dead_letter (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        stream TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        kind TEXT NOT NULL,
        reason TEXT NOT NULL,
        detail TEXT NOT NULL,
        refused_at_ms INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE open_summary (
        bundle TEXT NOT NULL,
        period_start_ms INTEGER NOT NULL,
        counts TEXT NOT NULL,
        PRIMARY KEY (bundle, period_start_ms)
    ) STRICT, WITHOUT ROWID
    """,
    """
    CREATE TABLE open_incident (
        only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
        bundle TEXT NOT NULL,
        started_at_ms INTEGER NOT NULL,
        windows INTEGER NOT NULL,
        highest_anomaly_score REAL NOT NULL,
        healthy_run INTEGER NOT NULL,
        last_stored_ms INTEGER NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE counter (
        name TEXT PRIMARY KEY,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID
    """,
)
