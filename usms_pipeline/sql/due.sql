-- Sessions of one partition that are due, the oldest unmet polling time first.
-- Grain: session. A session is due when any of its recipients is.
-- Parameters: $offsets (polling times after sent_at, microseconds, ascending), $now.
SELECT session_no, min(poll_at) AS unmet_at
FROM (
    SELECT
        session_no,
        sent_at + to_microseconds(
            list_filter(
                $offsets::BIGINT [],
                lambda o: last_asked_at IS NULL OR sent_at + to_microseconds(o) > last_asked_at
            )[1]
        ) AS poll_at
    FROM receipts
    WHERE NOT is_final AND NOT is_closed
)
WHERE poll_at <= $now
GROUP BY session_no
ORDER BY unmet_at, session_no
