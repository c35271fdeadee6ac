-- Sessions of one partition that are due, the oldest unmet polling time first.
-- Grain: session. A session is due when any of its recipients is.
-- tried: when it was asked about in vain, because the answer could not be read.
-- Parameters: $offsets (polling times after sent_at, microseconds, ascending), $now.
SELECT session_no, min(poll_at) AS unmet_at
FROM (
    SELECT
        session_no,
        sent_at + to_microseconds(
            list_filter(
                $offsets::BIGINT [],
                lambda o: tried_at IS NULL OR sent_at + to_microseconds(o) > tried_at
            )[1]
        ) AS poll_at
    FROM (
        SELECT r.session_no, r.sent_at, greatest(r.last_asked_at, t.asked_at) AS tried_at
        FROM receipts AS r
        LEFT JOIN (
            SELECT session_no, max(asked_at) AS asked_at FROM tried GROUP BY session_no
        ) AS t ON t.session_no = r.session_no
        WHERE NOT r.is_final AND NOT r.is_closed
    )
)
WHERE poll_at <= $now
GROUP BY session_no
ORDER BY unmet_at, session_no
