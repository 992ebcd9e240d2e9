"""A fleet's past, written into the real schema by the database itself: devices, results, incidents, roll-ups.

The rows are what ingest would have left: a stream a device whose numbers have no holes, incidents that are the sum of
their records, a summary a device and hour, roll-ups that are the sum of summaries and incidents, rows in the partition
of the month they came in. Three things are simpler: digests are no digests of the records, all contributions of an
incident are those of its peak, and summaries reach back two weeks only, as a server that keeps no more would have it::

    with EmbeddedPostgres(folder) as postgres:
        migrate(postgres.owner_url, app_role="stella_app")
        seed(postgres.owner_url, Fleet(devices=10_000, anomalies=10_000_000), now=utc_now())

Everything is skewed as fleets are: a few devices and signals make most of the trouble, high scores are rare, one signal
is in a single incident of a hundred thousand, and one stopped two months ago.
"""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

DAY_MS = 86_400_000
MODEL = "engine"
# Every record table is a month a partition; two servers' worth of code must not have to agree on more than the names.
RECORD_TABLES = ("anomalies", "summaries", "gaps", "events")
COHORTS = ("north", "south", "east", "west", "harbour", "mine", "pilot")
SIGNALS = tuple(f"signal_{place:02d}" for place in range(20))
RARE_SIGNAL, RETIRED_SIGNAL = "rare_signal", "retired_signal"
# Windows of an hour that fall into each bin; three shapes that hours take in turn.
HISTOGRAMS = (
    (5, 5, 5, 6, 6, 6, 6, 6, 5, 6, 2, 1, 1, 0, 0),
    (6, 6, 6, 6, 5, 5, 5, 5, 6, 6, 3, 1, 0, 0, 0),
    (4, 4, 5, 5, 6, 6, 6, 7, 6, 5, 3, 1, 1, 1, 0),
)
WINDOWS_AN_HOUR = sum(HISTOGRAMS[0])


@dataclass(frozen=True, slots=True)
class Fleet:
    """How large the past is.

    Attributes:
        devices: How many devices.
        anomalies: Rows of stored anomalous windows, about; a quarter as many incidents.
        days: How far back they reach.
        summary_days: How far back summaries reach.
        releases: Releases in use one after the other.
        seed: Of the database's random numbers, in [-1, 1].
    """

    devices: int = 10_000
    anomalies: int = 10_000_000
    days: int = 90
    summary_days: int = 14
    releases: int = 4
    seed: float = 0.25


# Rows must lie on the disk in the order in which they came: joins are hash joins, in the order written, whose left side
# is read in its order.
_SESSION = """
    SET work_mem = '256MB'; SET maintenance_work_mem = '512MB'; SET synchronous_commit = off;
    SET max_parallel_workers_per_gather = 0; SET timezone = 'UTC';
    SET enable_mergejoin = off; SET join_collapse_limit = 1
"""
# Releases and enrolment: what devices and records refer to.
_BUNDLES = """
    INSERT INTO bundles (digest, path, model, version, release_number, size, size_unpacked, signer, manifest,
        published_at)
    SELECT encode(sha256(CAST('bundle ' || r AS bytea)), 'hex'), %(model)s || '/1.' || r || '/default.bundle',
        %(model)s, '1.' || r, r, 1, 1, '', jsonb_build_object('histogram', %(training)s::jsonb),
        to_timestamp(%(from_ms)s / 1000.0)
    FROM generate_series(1, %(releases)s) AS r
"""
_ENROLMENT = """
    WITH token AS (
        INSERT INTO access_tokens (kind, digest, name, uses_left, created_at)
        VALUES ('enr', sha256('seeded'), 'seeded', 0, %(now)s) RETURNING id)
    INSERT INTO enrolments (token_id, model, channel, uses_allowed, created_by)
    SELECT id, %(model)s, 'stable', 1, 'seeding' FROM token
"""
# Nine in ten were here today; every fiftieth has no cohort, the first ones make most of the trouble.
_FLEET = """
    CREATE TEMP TABLE fleet ON COMMIT DROP AS
    SELECT n, md5('device ' || n) AS id,
        CASE WHEN mod(n, 50) <> 0 THEN (%(cohorts)s::text[])[1 + CAST(floor(7 * power(random(), 2)) AS integer)]
        END AS cohort,
        %(now)s - CASE WHEN mod(n, 10) <> 0 THEN 86000 * random() ELSE 2000000 * random() END * interval '1 second'
        AS seen
    FROM generate_series(1, %(devices)s) AS n
"""
_DEVICES = """
    INSERT INTO devices (id, installation_id, enrolment_id, name, cohort, kind, model, channel, created_at,
        last_seen_at, last_result_at, active_bundle, active_release, active_version, outbox_records, dead_letters,
        stale, update_outcome, status, status_at)
    SELECT f.id, md5('installation ' || n), (SELECT max(token_id) FROM enrolments), 'pump-' || lpad(n::text, 6, '0'),
        f.cohort, 'edge', %(model)s, CASE WHEN mod(n, 20) = 0 THEN 'beta' ELSE 'stable' END,
        to_timestamp(%(from_ms)s / 1000.0), f.seen, f.seen, b.digest, b.release_number, b.version, mod(n, 90),
        CASE WHEN mod(n, 400) = 0 THEN 3 ELSE 0 END, mod(n, 250) = 0,
        CASE WHEN mod(n, 300) = 0 THEN 'refused' ELSE 'activated' END,
        jsonb_build_object('runtime', jsonb_build_object('edge_runtime', '0.1.0', 'python', '3.11.2')), f.seen
    FROM fleet f JOIN bundles b
        ON b.release_number = CASE WHEN mod(n, 13) = 0 THEN greatest(1, %(releases)s - 1) ELSE %(releases)s END
"""
_CAUSES = """
    CREATE TEMP TABLE causes ON COMMIT DROP AS
    SELECT n, ARRAY[first, (%(signals)s::text[])[1 + mod(place + 1 + mod(n, 5), 20)],
                    (%(signals)s::text[])[1 + mod(place + 7 + mod(n, 4), 20)]] AS signals,
        jsonb_build_array(jsonb_build_array(first, round(CAST(0.1 + 0.4 * random() AS numeric), 6)),
            jsonb_build_array((%(signals)s::text[])[1 + mod(place + 1 + mod(n, 5), 20)], 0.091),
            jsonb_build_array((%(signals)s::text[])[1 + mod(place + 7 + mod(n, 4), 20)], -0.012)) AS contributions
    FROM (SELECT n, place, CASE n WHEN 1 THEN %(rare)s WHEN 2 THEN %(retired)s
                           ELSE (%(signals)s::text[])[1 + place] END AS first
          FROM (SELECT n, CAST(floor(20 * power(random(), 3)) AS integer) AS place
                FROM generate_series(1, 2000) AS n) AS drawn) AS named
"""
# Incidents in the order they began, 1 to 7 records each; nines: how close to 1 the highest score comes.
_OUTBREAKS = """
    CREATE TEMP TABLE outbreaks ON COMMIT DROP AS
    SELECT k, 1 + CAST(floor(%(devices)s * power(random(), 1.5)) AS integer) AS n, 1 + mod(k, 7) AS records,
        %(from_ms)s + CAST((%(to_ms)s - %(from_ms)s - 9000000) * (CAST(k AS float8) / %(incidents)s) AS bigint)
        AS started_ms,
        CASE WHEN mod(k, 100000) = 7 THEN 1
             WHEN k < %(incidents)s / 3 AND mod(k, 15) = 0 THEN 2
             ELSE 3 + CAST(floor(1998 * random()) AS integer) END AS cause,
        2 - ln(1 - 0.999999 * random()) / 2 AS nines, random() AS chance
    FROM generate_series(1, %(incidents)s) AS k
"""
_WINDOWS = """
    CREATE TEMP TABLE anomalous ON COMMIT DROP AS
    SELECT *, row_number() OVER (PARTITION BY n ORDER BY observed_ms, k) AS sequence
    FROM (SELECT k, n, cause, started_ms, step, started_ms + (step - 1) * 1200000 AS observed_ms,
              least(%(to_ms)s, started_ms + (step - 1) * 1200000 + 60000 + CAST(
                  CASE WHEN chance < 0.02 THEN 250000000 * random() ELSE 3000000 * random() END AS bigint))
              AS received_ms,
              1 - power(10, -(nines - 0.05 * (records - step))) AS score,
              least(%(releases)s, 1 + (started_ms - %(from_ms)s) * %(releases)s / (%(to_ms)s - %(from_ms)s)) AS release
          FROM outbreaks CROSS JOIN LATERAL generate_series(1, records) AS step) AS stepped
"""
_STREAMS = """
    INSERT INTO streams (device_id, stream, first_seen_at, grown_at)
    SELECT id, md5('stream ' || n), to_timestamp(%(from_ms)s / 1000.0), seen FROM fleet ORDER BY n
"""
_ANOMALIES = """
    INSERT INTO anomalies (received_at, stream_id, sequence, digest, device_id, bundle, cohort, observed_at_ms,
        incident_started_at_ms, anomaly_score, raw_score, windows, contributions, signals, stale, ahead)
    SELECT to_timestamp(a.received_ms / 1000.0), s.id, a.sequence, sha256(int8send(a.k * 8 + a.step)), f.id, b.digest,
        f.cohort, a.observed_ms, a.started_ms, a.score, a.score - 0.3, a.step * 4 - 3, c.contributions, c.signals,
        false, false
    FROM (SELECT * FROM anomalous ORDER BY received_ms, k, step) AS a
        JOIN fleet f ON f.n = a.n JOIN streams s ON s.device_id = f.id JOIN causes c ON c.n = a.cause
        JOIN bundles b ON b.release_number = a.release
"""
# Nine in ten older ones are settled. What began in the last two hours goes on.
_INCIDENTS = """
    INSERT INTO incidents (device_id, bundle, started_at_ms, cohort, last_observed_ms, listed_at_ms, ended_at_ms,
        windows, records, peak_score, peak_raw_score, contributions, signals, stale, ahead, created_at, updated_at,
        status, status_by, status_note, status_at)
    SELECT f.id, b.digest, o.started_ms, f.cohort, o.last_ms, o.last_ms,
        CASE WHEN o.last_ms < %(to_ms)s - 7200000 THEN o.last_ms + 1800000 END, o.records * 4 - 3, o.records,
        1 - power(10, -o.nines), 0.7 - power(10, -o.nines), c.contributions, c.signals, false, false,
        to_timestamp(o.started_ms / 1000.0), to_timestamp(least(%(to_ms)s, o.last_ms + 60000) / 1000.0),
        o.status, CASE WHEN o.status <> 'open' THEN 'seeding' END, CASE WHEN o.status <> 'open' THEN 'settled' END,
        CASE WHEN o.status <> 'open' THEN to_timestamp(least(%(to_ms)s, o.last_ms + 90000000) / 1000.0) END
    FROM (SELECT *, started_ms + (records - 1) * 1200000 AS last_ms,
              least(%(releases)s, 1 + (started_ms - %(from_ms)s) * %(releases)s / (%(to_ms)s - %(from_ms)s)) AS release,
              CASE WHEN started_ms > %(to_ms)s - 172800000 OR chance < 0.08 THEN 'open'
                   WHEN chance < 0.1 THEN 'acknowledged' ELSE 'resolved' END AS status
          FROM outbreaks ORDER BY k) AS o
        JOIN fleet f ON f.n = o.n JOIN causes c ON c.n = o.cause JOIN bundles b ON b.release_number = o.release
"""
# How many numbers of each stream are used up.
_HELD = """
    CREATE TEMP TABLE held ON COMMIT DROP AS
    SELECT s.id AS stream_id, f.n, f.id AS device_id, f.cohort, coalesce(a.stored, 0) AS stored
    FROM fleet f JOIN streams s ON s.device_id = f.id
        LEFT JOIN (SELECT n, count(*) AS stored FROM anomalous GROUP BY n) AS a ON a.n = f.n
"""
_EVENTS = """
    INSERT INTO events (received_at, stream_id, sequence, digest, device_id, bundle, observed_at_ms, name, detail,
        ahead)
    SELECT to_timestamp(least(%(to_ms)s, i.ended_at_ms + 60000) / 1000.0), h.stream_id,
        h.stored + row_number() OVER (PARTITION BY i.device_id ORDER BY i.id), sha256(int8send(i.id)), i.device_id,
        i.bundle, i.ended_at_ms, 'incident_ended',
        jsonb_build_object('incident_started_at_ms', i.started_at_ms, 'windows', i.windows), false
    FROM incidents i JOIN held h ON h.device_id = i.device_id
    WHERE i.ended_at_ms IS NOT NULL ORDER BY i.id
"""
_HELD_EVENTS = """
    UPDATE held SET stored = stored + e.events
    FROM (SELECT stream_id, count(*) AS events FROM events GROUP BY stream_id) AS e WHERE e.stream_id = held.stream_id
"""
_SUMMARIES = """
    INSERT INTO summaries (received_at, stream_id, sequence, digest, device_id, bundle, period_start_ms, period,
        windows, anomalous, warming_up, late, cells, missing, histogram, latency_count, latency_sum_us,
        latency_max_us, ahead)
    SELECT to_timestamp((hour_ms + 3660000) / 1000.0), h.stream_id, h.stored + place, sha256(int8send(hour_ms)),
        h.device_id, b.digest, hour_ms, 'hour', %(windows)s, 1, 0, 0, %(windows)s * 20, 3,
        CASE mod(hour_ms / 3600000, 3) WHEN 0 THEN %(shape_0)s::bigint[] WHEN 1 THEN %(shape_1)s::bigint[]
            ELSE %(shape_2)s::bigint[] END, %(windows)s, %(windows)s * 90, 400, false
    FROM hours JOIN bundles b ON b.release_number = hours.release CROSS JOIN held h
    WHERE place > 0 ORDER BY hour_ms, h.n
"""
# place: 1 for the first hour that still has summaries, below that for older ones.
_HOURS = """
    CREATE TEMP TABLE hours ON COMMIT DROP AS
    SELECT hour_ms, (hour_ms - (%(last_hour_ms)s - %(summary_hours)s * 3600000)) / 3600000 AS place,
        least(%(releases)s, greatest(1, 1 + (hour_ms - %(from_ms)s) * %(releases)s / (%(to_ms)s - %(from_ms)s)))
        AS release
    FROM generate_series(%(first_hour_ms)s, %(last_hour_ms)s, 3600000) AS hour_ms
"""
_HELD_SUMMARIES = "UPDATE held SET stored = stored + %(summary_hours)s"
_GROWN = """
    UPDATE streams SET held = CASE WHEN h.stored > 0 THEN int8multirange(int8range(1, h.stored, '[]')) ELSE '{}' END
    FROM held h WHERE h.stream_id = streams.id
"""
_ROLLUPS = """
    INSERT INTO hourly_rollups (started_at_ms, period, cohort, model, release_number, windows, anomalous, incidents,
        warming_up, late, cells, missing, histogram)
    SELECT hour_ms, 'hour', g.cohort, %(model)s, release, g.devices * %(windows)s, g.devices, coalesce(i.began, 0),
        0, 0, g.devices * %(windows)s * 20, g.devices * 3,
        (SELECT array_agg(g.devices * w ORDER BY bin) FROM unnest(CASE mod(hour_ms / 3600000, 3)
            WHEN 0 THEN %(shape_0)s::bigint[] WHEN 1 THEN %(shape_1)s::bigint[] ELSE %(shape_2)s::bigint[] END)
            WITH ORDINALITY AS shape(w, bin))
    FROM hours CROSS JOIN (SELECT coalesce(cohort, '') AS cohort, count(*) AS devices FROM fleet GROUP BY 1) AS g
        LEFT JOIN (SELECT started_at_ms - mod(started_at_ms, 3600000) AS hour_ms, coalesce(cohort, '') AS cohort,
                       count(*) AS began FROM incidents GROUP BY 1, 2) AS i USING (hour_ms, cohort)
"""
_GAPS = """
    INSERT INTO gaps (received_at, stream_id, sequence, digest, device_id, first_sequence, last_sequence, count, reason)
    SELECT %(now)s, stream_id, stored + 1, sha256(int8send(n)), device_id, 1, 1, 1, 'outbox_full'
    FROM held WHERE mod(n, 100) = 0 AND stored > 0
"""
_HELD_GAPS = "UPDATE held SET stored = stored + 1 WHERE mod(n, 100) = 0 AND stored > 0"
_PARTS = (
    ("releases and the enrolment", _BUNDLES + ";" + _ENROLMENT),
    ("devices", _FLEET + ";" + _DEVICES + ";" + _STREAMS + "; ANALYZE fleet; ANALYZE devices; ANALYZE streams"),
    (
        "plan of the incidents",
        _CAUSES + ";" + _OUTBREAKS + ";" + _WINDOWS + "; ANALYZE causes; ANALYZE anomalous; ANALYZE outbreaks",
    ),
    ("anomalies", _ANOMALIES),
    ("incidents", _INCIDENTS + "; ANALYZE incidents"),
    ("events", _HELD + ";" + _EVENTS + ";" + _HELD_EVENTS),
    ("summaries", _HOURS + ";" + _SUMMARIES + ";" + _HELD_SUMMARIES),
    ("gaps and streams", _GAPS + ";" + _HELD_GAPS + ";" + _GROWN),
    ("roll-ups", _ROLLUPS),
)
# Indexes that no constraint needs, by the statements that make them again.
_INDEXES = """
    SELECT c.oid::regclass::text, replace(pg_get_indexdef(c.oid), ' ON ONLY ', ' ON ')
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid::regclass::text IN ('anomalies', 'summaries', 'gaps', 'events', 'incidents')
        AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid)
    ORDER BY c.relname
"""


def seed(owner_url: str, fleet: Fleet, *, now: datetime) -> dict[str, int]:
    """Fill a migrated database that holds no device yet, in one transaction, and let Postgres gather its statistics.

    Indexes are dropped before and made again after, which is faster than keeping them up row by row.

    Args:
        owner_url: Address as the role that owns the tables.
        fleet: How large the past is.
        now: Where it ends.

    Returns:
        Rows by table.

    Raises:
        ValueError: There are devices already.
    """
    with psycopg.connect(owner_url.replace("+psycopg", ""), cursor_factory=psycopg.ClientCursor) as connection:
        connection.execute(_SESSION)
        if connection.execute("SELECT EXISTS (SELECT FROM devices)").fetchone() != (False,):
            raise ValueError("the database holds devices already; seed an empty one")
        given = _parameters(fleet, now)
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(name)))
        _make_partitions(connection, fleet)
        connection.execute("SELECT setseed(%(seed)s)", given)
        for title, statements in _PARTS:
            _tell(title)
            connection.execute(statements, given)
        for name, definition in indexes:
            _tell(f"index {name}")
            connection.execute(definition)
        connection.commit()
        connection.autocommit = True
        _tell("statistics")
        connection.execute("VACUUM (ANALYZE)")
        return _count(connection)


def _parameters(fleet: Fleet, now: datetime) -> dict[str, Any]:
    to_ms = int(now.timestamp() * 1000)
    from_ms = to_ms - fleet.days * DAY_MS
    return {
        **asdict(fleet),
        "now": now,
        "from_ms": from_ms,
        "to_ms": to_ms,
        "incidents": max(1, fleet.anomalies // 4),
        "model": MODEL,
        "cohorts": list(COHORTS),
        "signals": list(SIGNALS),
        "rare": RARE_SIGNAL,
        "retired": RETIRED_SIGNAL,
        "training": str(list(HISTOGRAMS[0])),
        "windows": WINDOWS_AN_HOUR,
        "summary_hours": fleet.summary_days * 24,
        "first_hour_ms": from_ms - from_ms % 3_600_000,
        "last_hour_ms": to_ms - to_ms % 3_600_000 - 3_600_000,
        **{f"shape_{place}": list(shape) for place, shape in enumerate(HISTOGRAMS)},
    }


def _make_partitions(connection: psycopg.Connection[Any], fleet: Fleet) -> None:
    """Make the partitions of past months, which upkeep made when those months were to come."""
    months = connection.execute(
        "SELECT to_char(m, 'YYYY_MM'), m, m + interval '1 month' FROM generate_series(date_trunc('month',"
        " now() - make_interval(days => %s)), now() - interval '1 month', interval '1 month') AS m",
        (fleet.days + 1,),
    ).fetchall()
    for table in RECORD_TABLES:
        for month, starts, ends in months:
            connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
                    sql.Identifier(f"{table}_{month}"), sql.Identifier(table), sql.Literal(starts), sql.Literal(ends)
                )
            )


def _count(connection: psycopg.Connection[Any]) -> dict[str, int]:
    rows = {}
    for table in ("devices", "anomalies", "incidents", "summaries", "events", "gaps", "hourly_rollups"):
        found = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
        rows[table] = int(found[0]) if found else 0
    return rows


_began = time.monotonic()


def _tell(what: str) -> None:
    sys.stderr.write(f"  seeding {time.monotonic() - _began:6.1f} s  {what}\n")
    sys.stderr.flush()
