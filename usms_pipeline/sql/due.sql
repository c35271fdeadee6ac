-- Sessions of one partition that are due, the oldest unmet polling time first.
-- Grain: session. A session is due when any of its recipients is.
-- tried: when it was asked about in vain, because the answer could not be read.
-- Past the last polling time only such a session still waits.
-- A source row without a session number can't be asked about.
-- Parameters: $offsets (polling times after sent_at, microseconds, ascending), $now;
-- $in_vain_every (microseconds), from one try past the last polling time to the next.
WITH last_tries AS (SELECT session_no, max(asked_at) AS asked_at FROM tried GROUP BY session_no),

asked AS (
    SELECT
        w.session_no,
        w.sent_at,
        epoch_us(greatest(w.last_asked_at, t.asked_at)) - epoch_us(w.sent_at) AS asked_after
    FROM waiting AS w
    LEFT JOIN last_tries AS t ON t.session_no = w.session_no
    WHERE w.session_no IS NOT NULL
),

polls AS (SELECT unnest($offsets::BIGINT []) AS poll_after)

SELECT session_no, min(sent_at + to_microseconds(poll_after)) AS unmet_at
FROM (
    SELECT session_no, sent_at, $offsets[1] AS poll_after
    FROM asked
    WHERE asked_after IS NULL
    UNION ALL
    SELECT a.session_no, a.sent_at, p.poll_after
    FROM asked AS a ASOF JOIN polls AS p ON a.asked_after < p.poll_after
    UNION ALL
    SELECT session_no, sent_at, asked_after + $in_vain_every AS poll_after
    FROM asked
    WHERE asked_after >= list_last($offsets)
)
WHERE sent_at + to_microseconds(poll_after) <= $now
GROUP BY session_no
ORDER BY unmet_at, session_no
