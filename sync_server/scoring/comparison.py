"""Champion against challenger: figures over the windows that both scored, computed by Postgres.

Rank correlation is Spearman's: Pearson's over ranks, equal values sharing their mean rank
(https://en.wikipedia.org/wiki/Spearman%27s_rank_correlation_coefficient), on raw scores, because the calibrated map is
steep where it matters.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Session

# The newest windows that one comparison looks at: measured, half a second beside other work.
MAX_COMPARED = 50_000
_FIGURES = text("""
    WITH kept AS (
        SELECT w.*, a.release_number AS champion_release, b.release_number AS challenger_release
        FROM (SELECT * FROM scored_windows WHERE channel = :channel AND challenger IS NOT NULL AND scored_at >= :since
              ORDER BY id DESC LIMIT :most) w
        JOIN bundles a ON a.digest = w.champion JOIN bundles b ON b.digest = w.challenger
    ), ranked AS (
        SELECT kept.*, challenger_anomaly IS NOT NULL AS scored, champion_anomaly <> challenger_anomaly AS flips,
            rank() OVER (PARTITION BY champion_release, challenger_release, challenger_raw IS NULL
                         ORDER BY champion_raw)
            + (count(*) OVER (PARTITION BY champion_release, challenger_release, challenger_raw IS NULL,
                              champion_raw) - 1) / 2.0 AS champion_rank,
            rank() OVER (PARTITION BY champion_release, challenger_release ORDER BY challenger_raw)
            + (count(*) OVER (PARTITION BY champion_release, challenger_release, challenger_raw) - 1) / 2.0
                AS challenger_rank
        FROM kept
    )
    SELECT champion_release, challenger_release, cohort, grouping(cohort) = 1 AS whole,
        count(*) FILTER (WHERE scored) AS compared,
        count(*) FILTER (WHERE NOT scored) AS not_scored,
        count(*) FILTER (WHERE champion_anomaly AND challenger_anomaly) AS both_anomalous,
        count(*) FILTER (WHERE NOT champion_anomaly AND challenger_anomaly) AS newly_flagged,
        count(*) FILTER (WHERE champion_anomaly AND NOT challenger_anomaly) AS no_longer_flagged,
        count(*) FILTER (WHERE NOT flips)::float8 / nullif(count(*) FILTER (WHERE scored), 0) AS agreement,
        avg(challenger_score - champion_score) AS mean_difference,
        max(abs(challenger_score - champion_score)) AS largest_difference,
        corr(champion_rank, challenger_rank) FILTER (WHERE scored) AS rank_correlation,
        count(DISTINCT device_id) AS devices,
        count(DISTINCT device_id) FILTER (WHERE flips) AS devices_with_flips,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY champion_us) FILTER (WHERE scored) AS champion_us,
        percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY challenger_us) FILTER (WHERE scored)
            AS challenger_us,
        min(scored_at) AS first_at, max(scored_at) AS last_at
    FROM ranked
    GROUP BY GROUPING SETS ((champion_release, challenger_release), (champion_release, challenger_release, cohort))
    ORDER BY max(id) DESC, whole DESC, cohort
""")
_REASONS = text("""
    SELECT challenger_error, count(*) FROM (
        SELECT challenger_error FROM scored_windows
        WHERE channel = :channel AND challenger IS NOT NULL AND scored_at >= :since ORDER BY id DESC LIMIT :most) w
    WHERE challenger_error IS NOT NULL GROUP BY 1 ORDER BY 1
""")


def compare(session: Session, channel: str, since: datetime) -> dict[str, Any]:
    """Compare champion and challenger over a channel's newest windows, at most 50,000.

    Args:
        session: The open transaction.
        channel: The channel.
        since: Windows scored before are not looked at.

    Returns:
        ``pairs``: for each pair of releases its figures and those of each cohort; ``not_scored``: windows that the
        challenger gave no verdict on, by reason. Latencies are microseconds a window, [median, 95 %].
    """
    values = {"channel": channel, "since": since, "most": MAX_COMPARED}
    pairs: dict[tuple[int, int], dict[str, Any]] = {}
    for row in session.execute(_FIGURES, values).mappings():
        figures = dict(row)
        pair = figures.pop("champion_release"), figures.pop("challenger_release")
        entry = pairs.setdefault(pair, {"champion": pair[0], "challenger": pair[1], "cohorts": []})
        cohort, whole = figures.pop("cohort"), figures.pop("whole")
        if whole:
            entry |= figures
        else:
            # Ranks are among all windows of the pair, so a cohort's own correlation is not in them.
            del figures["rank_correlation"]
            entry["cohorts"].append({"cohort": cohort, **figures})
    reasons = {str(reason): int(count) for reason, count in session.execute(_REASONS, values)}
    return {"channel": channel, "since": since, "pairs": list(pairs.values()), "not_scored": reasons}
