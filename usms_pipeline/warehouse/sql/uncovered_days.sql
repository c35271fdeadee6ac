-- The latest settled days with too few final statuses: see uncovered_days in figures/queries.py.
WITH settled AS (
    SELECT sent_date, messages, delivered + failed + rejected + expired AS with_evidence
    FROM delivery_rate_daily
    WHERE awaited = 0 AND sent_date < usms_newest_day()
    ORDER BY sent_date DESC
    LIMIT $days
),
judged AS (
    SELECT
        *,
        messages * usms_divergence(with_evidence / messages, $share) AS of_the_day,
        sum(messages) OVER () * usms_divergence(
            least(sum(with_evidence) OVER () / sum(messages) OVER (), $share), $share
        ) AS of_all
    FROM settled
)
SELECT sent_date, messages, with_evidence
FROM judged
WHERE
    with_evidence < messages * $share
    AND greatest(of_the_day, of_all) > ln(($days + 1) * 1000)
ORDER BY sent_date
