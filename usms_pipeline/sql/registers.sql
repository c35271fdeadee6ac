-- What is known of each (session, number): the join of what was known and what was just observed.
-- Grain: (session_no, number); number '' is what names no phone: a receipt without one, a refusal,
-- or that the session was asked about and had no receipt.
-- Every aggregate is associative, commutative and idempotent, so the order and the number of
-- repetitions of the answers do not matter. min() and max() of a struct compare field by field,
-- NULL last: that order is the tie-break (asked_at, received_at, rank, code, word, …).
-- What was heard of once is what it is: only keys that are there twice are aggregated. Keys are
-- told apart by a hash; two that share one go the long way, which is right for every key.
-- Filled in: {{part}} of {{parts}} of the sessions.
WITH everything AS (
    SELECT *, hash(session_no, number) AS key
    FROM (
        SELECT * FROM known_registers
        UNION ALL BY NAME
        SELECT * FROM observed
    )
    WHERE hash(session_no) % {{parts}} = {{part}}
),

repeated AS (SELECT key FROM everything GROUP BY key HAVING count(*) > 1)

SELECT * EXCLUDE (key) FROM everything ANTI JOIN repeated USING (key)
UNION ALL BY NAME
SELECT
    session_no,
    number,
    min(phone) AS phone,
    min(country) AS country,
    min("operator") AS "operator",
    min(number_type) AS number_type,
    min(final) AS final,
    max("open") AS "open",
    list_sort(list_distinct(flatten(list(finals_seen)))) AS finals_seen,
    min(first_asked_at) AS first_asked_at,
    max(last_asked_at) AS last_asked_at,
    max({'asked_at': last_asked_at, 'word': session_submit_status}).word AS session_submit_status
FROM everything SEMI JOIN repeated USING (key)
GROUP BY session_no, number
