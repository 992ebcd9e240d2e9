"""``store_results``: a whole batch in one call, as plain SQL that a migration runs as the owner.

The server used to send some fifteen statements a batch, and most of the time went into sending them
(docs/adr/0015-one-call-a-batch.md). The function runs with the caller's rights. It takes its locks in one order:
device, stream, incidents by key, roll-up rows by key.

It returns one row, and writes something only when ``outcome`` is ``stored``:

| outcome | means |
|---|---|
| ``stored`` | every number that was given is held now |
| ``held`` | some are held already (``held``; of those still there ``kept`` with ``digests``), or ``is_full`` of holes |
| ``too_many_streams`` | the device may open no further stream |
| ``quota`` | the device sent as much as it may; again after ``wait_seconds`` |
| ``device_unknown`` | no such device |
"""

from __future__ import annotations

from sync_server.ingest.partitions import RECORD_TABLES

SUMS = ("windows", "anomalous", "incidents", "warming_up", "late", "cells", "missing")

# What a device sent in this minute and this hour (both counted since 1970): the quotas' own memory.
_USAGE = """
ALTER TABLE devices
    ADD COLUMN used_minute bigint NOT NULL DEFAULT 0,
    ADD COLUMN used_minute_records bigint NOT NULL DEFAULT 0,
    ADD COLUMN used_hour bigint NOT NULL DEFAULT 0,
    ADD COLUMN used_hour_records bigint NOT NULL DEFAULT 0,
    ADD COLUMN used_hour_bytes bigint NOT NULL DEFAULT 0
"""

# Whoever reads hourly_rollups sees the rows of its child as well, so readers sum over both and know of one table. A
# server of before writes to the parent alone. Half a page is left free, so that a sum that grows stays on its page.
_ROLLUP_SHARDS = """
CREATE TABLE hourly_rollup_shards (
    shard smallint NOT NULL,
    CONSTRAINT pk_hourly_rollup_shards PRIMARY KEY (started_at_ms, period, cohort, model, release_number, shard)
) INHERITS (hourly_rollups) WITH (fillfactor = 50)
"""

_ADD_HISTOGRAMS = """
CREATE FUNCTION add_histograms(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN (
    SELECT array_agg(x + y ORDER BY place) FROM unnest(a, b) WITH ORDINALITY AS t(x, y, place)
)
"""
_SUM_HISTOGRAMS = "CREATE AGGREGATE sum_histograms(bigint[]) (SFUNC = add_histograms, STYPE = bigint[])"

_RECORDS = {
    "anomalies": (
        "sequence bigint", "digest text", "bundle text", "observed_at_ms bigint", "incident_started_at_ms bigint",
        "anomaly_score float8", "raw_score float8", "windows bigint", "contributions jsonb", "signals text[]",
        "stale boolean", "ahead boolean",
    ),
    "summaries": (
        "sequence bigint", "digest text", "bundle text", "period_start_ms bigint", "period text", "windows bigint",
        "anomalous bigint", "warming_up bigint", "late bigint", "cells bigint", "missing bigint", "histogram bigint[]",
        "latency_count bigint", "latency_sum_us bigint", "latency_max_us bigint", "ahead boolean",
    ),
    "gaps": (
        "sequence bigint", "digest text", "first_sequence bigint", "last_sequence bigint", "count bigint",
        "reason text",
    ),
    "events": (
        "sequence bigint", "digest text", "bundle text", "observed_at_ms bigint", "name text", "detail jsonb",
        "ahead boolean",
    ),
}  # fmt: skip


def _insert(table: str) -> str:
    columns = [column.split()[0] for column in _RECORDS[table]]
    given = ["decode(r.digest, 'hex')" if column == "digest" else f"r.{column}" for column in columns]
    if table == "anomalies":
        columns, given = [*columns, "cohort"], [*given, "device.cohort"]
    return f"""
    IF batch ? '{table}' THEN
        INSERT INTO {table} (received_at, stream_id, device_id, {", ".join(columns)})
        SELECT moment, home.id, sender, {", ".join(given)}
        FROM jsonb_to_recordset(batch -> '{table}') AS r({", ".join(_RECORDS[table])}) ORDER BY r.sequence;
    END IF;"""  # noqa: S608 - put together from our own constants


_HIGHER = (
    "excluded.peak_score IS NOT NULL AND (i.peak_score IS NULL OR"
    " (excluded.peak_score, excluded.peak_raw_score) > (i.peak_score, i.peak_raw_score))"
)
_PEAK = ", ".join(
    f"{column} = CASE WHEN {_HIGHER} THEN excluded.{column} ELSE i.{column} END"
    for column in ("peak_score", "peak_raw_score", "contributions", "signals")
)
# A row that this statement inserted has xmax 0, in one that it updated the transaction's own number stands there. New
# incidents count in the roll-up of the hour in which they began.
_INCIDENTS_AND_ROLLUPS = f"""
    WITH kept AS (
        INSERT INTO incidents AS i (device_id, cohort, created_at, updated_at, status, bundle, started_at_ms,
            last_observed_ms, listed_at_ms, ended_at_ms, windows, records, peak_score, peak_raw_score, contributions,
            signals, stale, ahead)
        SELECT sender, device.cohort, moment, moment, 'open', r.*
        FROM jsonb_to_recordset(batch -> 'incidents') AS r(
            bundle text, started_at_ms bigint, last_observed_ms bigint, listed_at_ms bigint, ended_at_ms bigint,
            windows bigint, records bigint, peak_score float8, peak_raw_score float8, contributions jsonb,
            signals text[], stale boolean, ahead boolean)
        ORDER BY r.bundle, r.started_at_ms
        ON CONFLICT (device_id, bundle, started_at_ms) DO UPDATE SET
            last_observed_ms = greatest(i.last_observed_ms, excluded.last_observed_ms),
            listed_at_ms = greatest(i.listed_at_ms, excluded.listed_at_ms),
            ended_at_ms = greatest(i.ended_at_ms, excluded.ended_at_ms),
            windows = greatest(i.windows, excluded.windows),
            records = i.records + excluded.records,
            stale = i.stale OR excluded.stale,
            ahead = i.ahead OR excluded.ahead,
            updated_at = excluded.updated_at, {_PEAK}
        RETURNING i.bundle, i.started_at_ms, (i.xmax = 0) AS created
    ), began AS (
        SELECT k.bundle, count(*) AS incidents,
            CASE WHEN k.started_at_ms > moment_ms + 86400000 THEN moment_ms ELSE k.started_at_ms END
                / 3600000 * 3600000 AS started_at_ms
        FROM kept k WHERE k.created GROUP BY 1, 3
    ), counted AS (
        SELECT r.started_at_ms, r.period, r.bundle, {", ".join(f"r.{name}" for name in SUMS)}, r.histogram
        FROM jsonb_to_recordset(batch -> 'rollups') AS r(
            started_at_ms bigint, period text, bundle text, {", ".join(f"{name} bigint" for name in SUMS)},
            histogram bigint[])
        UNION ALL
        SELECT b.started_at_ms, 'hour', b.bundle,
            {", ".join("b.incidents" if name == "incidents" else "0" for name in SUMS)}, no_scores
        FROM began b
    )
    INSERT INTO hourly_rollup_shards AS h (started_at_ms, period, cohort, model, release_number,
        {", ".join(SUMS)}, histogram, shard)
    SELECT c.started_at_ms, c.period, coalesce(device.cohort, ''), coalesce(b.model, device.model),
        coalesce(b.release_number, 0), {", ".join(f"sum(c.{name})" for name in SUMS)}, sum_histograms(c.histogram),
        own_shard
    FROM counted c LEFT JOIN bundles b ON b.digest = c.bundle
    GROUP BY 1, 2, 4, 5 ORDER BY 1, 2, 4, 5
    ON CONFLICT (started_at_ms, period, cohort, model, release_number, shard) DO UPDATE SET
        {", ".join(f"{name} = h.{name} + excluded.{name}" for name in SUMS)},
        histogram = add_histograms(h.histogram, excluded.histogram);"""  # noqa: S608 - our own constants

_DIGESTS = " UNION ALL ".join(
    f"SELECT r.sequence, r.digest FROM {table} r"  # noqa: S608 - table names are our own constants
    " WHERE r.stream_id = home.id AND r.sequence = ANY(numbers) AND r.received_at >= home.first_seen_at"
    for table in RECORD_TABLES
)

# A, then B, then A again: a device that opened B for good adds nothing to A, so two devices live in one home. But a
# request that timed out on the device may still go on here, so growth counts only when the device sent it after it
# opened the other stream, by its own clock; or, as clocks can be wrong, when it came an hour later than that.
_TURN = (
    "({grown}.last_sent_at_ms > {other}.opened_at_ms OR {grown}.grown_at > {other}.first_seen_at + interval '1 hour')"
)

# limits: records a minute, records an hour, bytes an hour, streams, runs of held numbers. A quota is looked at before
# it is charged, so that a batch larger than all of it gets through once and no device is stuck for ever.
_STORE_RESULTS = f"""
CREATE FUNCTION store_results(
    sender text, sent_stream text, sent_at bigint, moment timestamptz, numbers bigint[], sent_records bigint,
    sent_bytes bigint, batch jsonb, limits bigint[],
    OUT outcome text, OUT held bigint[], OUT kept bigint[], OUT digests bytea[], OUT is_full boolean,
    OUT wait_seconds bigint
) LANGUAGE plpgsql AS $body$
DECLARE
    moment_ms CONSTANT bigint := floor(extract(epoch FROM moment) * 1000);
    no_scores CONSTANT bigint[] := array_fill(0::bigint, ARRAY[15]);
    -- Neighbours in time are neighbours in number: two connections at work hardly ever meet in one row.
    own_shard CONSTANT smallint := pg_backend_pid() % 16;
    given CONSTANT int8multirange := (SELECT range_agg(int8range(n, n, '[]')) FROM unnest(numbers) AS n);
    device record;
    home record;
BEGIN
    SELECT d.cohort, d.model,
        CASE WHEN d.used_minute = moment_ms / 60000 THEN d.used_minute_records ELSE 0 END AS minute_records,
        CASE WHEN d.used_hour = moment_ms / 3600000 THEN d.used_hour_records ELSE 0 END AS hour_records,
        CASE WHEN d.used_hour = moment_ms / 3600000 THEN d.used_hour_bytes ELSE 0 END AS hour_bytes
    INTO device FROM devices d WHERE d.id = sender FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        outcome := 'device_unknown';
        RETURN;
    END IF;
    wait_seconds := CASE
        WHEN device.hour_records >= limits[2] OR device.hour_bytes >= limits[3] THEN 3600 - moment_ms / 1000 % 3600
        WHEN device.minute_records >= limits[1] THEN 60 - moment_ms / 1000 % 60 END;
    IF wait_seconds IS NOT NULL THEN
        outcome := 'quota';
        RETURN;
    END IF;

    FOR attempt IN 1..2 LOOP
        SELECT s.id, s.first_seen_at, s.grown_at, s.held INTO home
        FROM streams s WHERE s.device_id = sender AND s.stream = sent_stream FOR UPDATE;
        EXIT WHEN FOUND;
        IF attempt = 2 OR (SELECT count(*) FROM streams s WHERE s.device_id = sender) >= limits[4] THEN
            outcome := 'too_many_streams';
            RETURN;
        END IF;
        INSERT INTO streams (device_id, stream, first_seen_at, opened_at_ms)
        VALUES (sender, sent_stream, moment, sent_at) ON CONFLICT (device_id, stream) DO NOTHING;
    END LOOP;

    IF given IS NOT NULL THEN
        is_full := (SELECT count(*) FROM unnest(home.held)) > limits[5];
        IF is_full OR home.held && given THEN
            outcome := 'held';
            held := ARRAY(SELECT n FROM unnest(numbers) AS n WHERE home.held @> n ORDER BY n);
            SELECT array_agg(d.sequence), array_agg(d.digest) INTO kept, digests FROM ({_DIGESTS}) AS d;
            RETURN;
        END IF;
        {"".join(_insert(table) for table in RECORD_TABLES)}
        {_INCIDENTS_AND_ROLLUPS}
        UPDATE streams s SET held = s.held + given, grown_at = moment,
            last_sent_at_ms = greatest(s.last_sent_at_ms, sent_at)
        WHERE s.id = home.id;
    END IF;
    UPDATE devices d SET last_seen_at = moment,
        last_result_at = CASE WHEN given IS NULL THEN d.last_result_at ELSE moment END,
        -- A batch with numbers that were held tells nothing of clones: it may come from a restored home, which opens
        -- a new stream as soon as it is told.
        cloned_at = CASE WHEN d.cloned_at IS NULL AND given IS NOT NULL AND cardinality(numbers) = sent_records
            AND EXISTS (
            SELECT FROM streams this JOIN streams other ON other.device_id = this.device_id AND other.id <> this.id
            WHERE this.id = home.id AND home.grown_at IS NOT NULL AND other.grown_at > home.grown_at
                AND {_TURN.format(grown="this", other="other")} AND {_TURN.format(grown="other", other="this")}
            ) THEN moment ELSE d.cloned_at END,
        used_minute = moment_ms / 60000, used_minute_records = device.minute_records + cardinality(numbers),
        used_hour = moment_ms / 3600000, used_hour_records = device.hour_records + cardinality(numbers),
        used_hour_bytes = device.hour_bytes + sent_bytes
    WHERE d.id = sender;
    outcome := 'stored';
END
$body$
"""  # noqa: S608 - put together from our own constants

STATEMENTS: tuple[str, ...] = (
    _USAGE,
    "ALTER TABLE streams SET (fillfactor = 70)",  # a stream that grows stays on its page, and its indexes as they are
    _ROLLUP_SHARDS,
    _ADD_HISTOGRAMS,
    _SUM_HISTOGRAMS,
    _STORE_RESULTS,
)
