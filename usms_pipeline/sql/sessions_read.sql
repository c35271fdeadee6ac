-- The rows read for one day. Grain: source row; those alike in session, recipient and time are
-- numbered by ordinal, in an order that does not hang on the order of reading.
-- Filled in: {{dimensions}} (comma list), $day, $version (of the file).
WITH day_rows AS (
    SELECT * EXCLUDE (sent_date), hash(session_no, recipient, sent_at) AS key
    FROM placed
    WHERE sent_date = $day
),

repeated AS (SELECT key FROM day_rows GROUP BY key HAVING count(*) > 1)

SELECT * EXCLUDE (key), 0 AS ordinal, $version AS changed_in
FROM day_rows ANTI JOIN repeated USING (key)
UNION ALL BY NAME
SELECT
    * EXCLUDE (key),
    row_number() OVER (
        PARTITION BY session_no, recipient, sent_at ORDER BY {{dimensions}} recipients
    ) - 1 AS ordinal,
    $version AS changed_in
FROM day_rows SEMI JOIN repeated USING (key)
