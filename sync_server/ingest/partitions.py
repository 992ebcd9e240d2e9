"""The partitions of the record tables: one a month, a default one as a safety net, and the door that makes them.

The server's own role owns nothing and may create nothing, so ``ensure_result_partitions`` belongs to the owner and runs
with the owner's rights (SECURITY DEFINER), with a pinned search path; all a caller can say is how many months ahead.
Partitions are named by their UTC month: ``anomalies_2026_11``. They hold whole months of ``received_at``; what arrives
in a month that nobody made a partition for goes to the default one, and moves when the month is made.

``STATEMENTS`` run once, as the owner, after the tables.
"""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.orm import Session

RECORD_TABLES = ("anomalies", "summaries", "gaps", "events")
MONTHS_AHEAD = 3

DEFAULT_PARTITIONS = tuple(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT" for table in RECORD_TABLES)

ENSURE_PARTITIONS = """
CREATE FUNCTION ensure_result_partitions(months_ahead integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $body$
DECLARE
    parent text;
    starts timestamptz;
    ends timestamptz;
    part text;
    made integer := 0;
BEGIN
    IF months_ahead < 0 OR months_ahead > 24 THEN
        RAISE EXCEPTION 'months_ahead must be between 0 and 24';
    END IF;
    FOR step IN 0..months_ahead LOOP
        starts := (date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => step)) AT TIME ZONE 'UTC';
        ends := (starts AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
        FOREACH parent IN ARRAY ARRAY['anomalies', 'summaries', 'gaps', 'events'] LOOP
            part := format('%s_%s', parent, to_char(starts AT TIME ZONE 'UTC', 'YYYY_MM'));
            CONTINUE WHEN to_regclass(format('public.%I', part)) IS NOT NULL;
            -- Two servers that come at once make each partition once.
            PERFORM pg_advisory_xact_lock(hashtext('ensure_result_partitions'));
            CONTINUE WHEN to_regclass(format('public.%I', part)) IS NOT NULL;
            EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
                part, parent);
            EXECUTE format('WITH moved AS (DELETE FROM public.%I'
                ' WHERE received_at >= %L AND received_at < %L RETURNING *)'
                ' INSERT INTO public.%I SELECT * FROM moved', parent || '_default', starts, ends, part);
            EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
                parent, part, starts, ends);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$body$
"""

STATEMENTS: tuple[str, ...] = (
    *DEFAULT_PARTITIONS,
    ENSURE_PARTITIONS,
    # PostgreSQL lets everybody call a new function; the migration lets the server's role.
    "REVOKE ALL ON FUNCTION ensure_result_partitions(integer) FROM PUBLIC",
    f"SELECT ensure_result_partitions({MONTHS_AHEAD})",
)


def ensure_partitions(session: Session) -> int:
    """Make the partitions of this month and the next three, and return how many were missing.

    Cheap when none is: sixteen catalogue look-ups and no lock. The server's upkeep calls it each minute.
    """
    statement = text("SELECT ensure_result_partitions(:months)")
    return int(session.execute(statement, {"months": MONTHS_AHEAD}).scalar_one())
