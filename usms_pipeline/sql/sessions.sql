-- One partition's sessions: what is stored, and what was read now, which wins where both have a row.
-- A row once seen is never dropped. Grain: source row, told apart by (session_no, recipient,
-- sent_at) and, among rows alike in these, by ordinal.
-- Filled in: {{dimensions}} (comma list), {{chosen}} (each column from the read row, else the
-- stored one), $day.
WITH read_now AS (
    SELECT
        * EXCLUDE (day),
        row_number() OVER (
            PARTITION BY session_no, recipient, sent_at ORDER BY {{dimensions}} recipients
        ) - 1 AS ordinal
    FROM placed
    WHERE day = $day
)

SELECT {{chosen}}
FROM read_now AS n
FULL JOIN stored AS s
    ON n.session_no IS NOT DISTINCT FROM s.session_no
    AND n.recipient IS NOT DISTINCT FROM s.recipient
    AND n.sent_at = s.sent_at
    AND n.ordinal = s.ordinal
