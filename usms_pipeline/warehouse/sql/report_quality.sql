-- What a reader of the report should know about the data itself. Grain: one row. extra_receipts are
-- of phones that are not in your table; closed_without_answer were asked in time and never got a
-- final status; words are the service's status words that are not known, with counts.
SELECT
    min(sent_date) FILTER (is_announced) AS first_date,
    max(sent_date) FILTER (is_announced) AS last_date,
    max(last_asked_at) AS as_of,
    count(*) FILTER (NOT is_announced) AS extra_receipts,
    count(*) FILTER (len(conflicts) > 0) AS conflicting,
    count(*) FILTER (is_announced AND delivery_seconds < 0) AS delivered_before_sent,
    (
        SELECT string_agg(word || ' (' || messages || ')', ', ' ORDER BY messages DESC, word)
        FROM (
            SELECT coalesce(provider_status, '') AS word, count(*) AS messages
            FROM receipts
            WHERE status = 'unrecognized'
            GROUP BY ALL
            ORDER BY messages DESC, word
            LIMIT 10
        )
    ) AS words
FROM receipts
