"""``drop_old_results``: partitions go when all of them is too old; plain SQL that a migration runs as the owner.

The server's own role may drop nothing, so the function belongs to the owner and runs with the owner's rights (SECURITY
DEFINER), with a pinned search path. All that a caller can say is for how many days to keep results, and the function
refuses less than a week: a stolen server cannot make results of this month go. Rows that an absent month left in the
default partition go by the same limit. Stream rows stay, so a number that was held once stays held.
"""

from __future__ import annotations

# The least number of days is :data:`sync_server.config.LEAST_KEPT_DAYS`, which the settings hold to as well.
# A partition is dropped at once or tried again later: who waits for its lock would have every batch waiting behind it.
_DROP_OLD_RESULTS = """
CREATE FUNCTION drop_old_results(keep_days integer) RETURNS text[]
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '2s' AS $body$
DECLARE
    oldest CONSTANT timestamptz := now() - make_interval(days => keep_days);
    parent text;
    part text;
    ends timestamptz;
    dropped text[] := '{}';
BEGIN
    IF keep_days IS NULL OR keep_days < 7 THEN
        RAISE EXCEPTION 'results are kept for at least 7 days';
    END IF;
    FOREACH parent IN ARRAY ARRAY['anomalies', 'summaries', 'gaps', 'events'] LOOP
        FOR part IN
            SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = format('public.%I', parent)::regclass
                AND c.relname ~ ('^' || parent || '_[0-9]{4}_[0-9]{2}$') ORDER BY c.relname
        LOOP
            ends := (to_date(right(part, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC';
            EXIT WHEN ends > oldest;
            EXECUTE format('DROP TABLE public.%I', part);
            dropped := dropped || part;
        END LOOP;
        EXECUTE format('DELETE FROM public.%I WHERE received_at < %L', parent || '_default', oldest);
    END LOOP;
    RETURN dropped;
END
$body$
"""

STATEMENTS: tuple[str, ...] = (
    _DROP_OLD_RESULTS,
    # PostgreSQL lets everybody call a new function; the migration lets the server's role.
    "REVOKE ALL ON FUNCTION drop_old_results(integer) FROM PUBLIC",
)
