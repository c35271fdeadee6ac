-- The rows of one partition: every recipient that the source announces, and every extra number
-- that a receipt came for. Grain: (session_no, recipient).
-- A pure function of the sessions, the registers and the cutoff; nothing of the matching is kept.
-- Filled in: {{part}} of {{parts}} of the sessions, whose registers are in {{registers}};
-- {{cutoff_seconds}}; {{carried}}, the dimensions, each with a comma. In here they are called
-- dimension_0, dimension_1, … so that no name of the customer's meets one of ours.
-- Nearly every session is plain: one row for one recipient, one number heard of at most. Only the
-- others need to be matched. They are told apart by a hash of the session number, whose collisions
-- only send a plain session the long way.
WITH keyed AS (
    SELECT *, hash(session_no) AS key FROM sessions WHERE hash(session_no) % {{parts}} = {{part}}
),

session_state AS (SELECT *, hash(session_no) AS key FROM {{registers}} WHERE number = ''),

heard AS (SELECT *, hash(session_no) AS key FROM {{registers}} WHERE number <> ''),

involved AS (
    SELECT key FROM keyed WHERE session_no IS NULL
    UNION
    SELECT key FROM keyed GROUP BY key HAVING count(*) > 1 OR max(recipients) > 1
    UNION
    SELECT key FROM heard GROUP BY key HAVING count(*) > 1
),

-- When a session was asked about, each of its rows says of some answers: put together where a
-- session has several rows, or several recipients for one of them.
asked AS (
    SELECT
        session_no,
        min(first_asked_at) AS first_asked_at,
        max(last_asked_at) AS last_asked_at,
        max({'asked_at': last_asked_at, 'word': session_submit_status}).word
            AS session_submit_status
    FROM {{registers}}
    WHERE hash(session_no) IN (
        FROM involved
        UNION
        SELECT hash(session_no) FROM {{registers}} GROUP BY hash(session_no) HAVING count(*) > 1
    )
    GROUP BY session_no
),

copies AS (
    SELECT * EXCLUDE (key), recipient AS owner, unnest(range(recipients)) AS copy
    FROM keyed SEMI JOIN involved USING (key)
),

owned AS (  -- a source row stands for one recipient or several; its phone is the first's
    SELECT
        * REPLACE (
            CASE WHEN copy = 0 THEN recipient END AS recipient,
            CASE WHEN copy = 0 THEN phone END AS phone,
            CASE WHEN copy = 0 THEN country END AS country,
            CASE WHEN copy = 0 THEN "operator" END AS "operator",
            CASE WHEN copy = 0 THEN number_type END AS number_type
        )
    FROM copies
),

slots AS (
    SELECT
        * EXCLUDE (recipients, ordinal, owner, copy),
        recipient IS NOT NULL AS has_phone,
        row_number() OVER (PARTITION BY session_no ORDER BY sent_at, ordinal, owner, copy)
            AS slot,
        count(*) OVER (PARTITION BY session_no) AS slots_in_session,
        row_number() OVER (PARTITION BY session_no, recipient ORDER BY copy, sent_at, ordinal)
            AS twin
    FROM owned
),

announced AS (  -- a phone announced twice in one session is two recipients, one of them unheard of
    SELECT * REPLACE (CASE WHEN twin = 1 OR session_no IS NULL THEN recipient END AS recipient)
    FROM slots
),

numbers AS (
    SELECT * EXCLUDE (key), count(*) OVER (PARTITION BY session_no) AS numbers_in_session
    FROM heard SEMI JOIN involved USING (key)
),

-- 1. Equal numbers; and one row with one number, whatever its form.
paired AS (
    SELECT a.session_no, a.slot, n.number
    FROM announced AS a
    JOIN numbers AS n
        ON n.session_no = a.session_no
        AND (
            n.number = a.recipient
            OR (a.slots_in_session = 1 AND n.numbers_in_session = 1)
        )
),

-- 2. The rest of the rows without a phone take the rest of the numbers, in the order of both.
free_slots AS (
    SELECT
        a.session_no,
        a.slot,
        row_number() OVER (PARTITION BY a.session_no ORDER BY a.slot) AS turn
    FROM announced AS a
    ANTI JOIN paired AS p ON p.session_no = a.session_no AND p.slot = a.slot
    WHERE NOT a.has_phone
),

free_numbers AS (
    SELECT
        n.session_no,
        n.number,
        -- a receipt without a phone is dealt last
        row_number() OVER (PARTITION BY n.session_no ORDER BY n.number = '', n.number) AS turn
    FROM (
        SELECT session_no, number FROM numbers
        UNION ALL
        SELECT z.session_no, '' AS number
        FROM session_state AS z
        JOIN announced AS a ON a.session_no = z.session_no AND a.slot = 1
        WHERE z.final IS NOT NULL AND a.slots_in_session > 1
    ) AS n
    ANTI JOIN paired AS p ON p.session_no = n.session_no AND p.number = n.number
),

dealt AS (
    SELECT session_no, slot, number FROM paired
    UNION ALL
    SELECT s.session_no, s.slot, n.number
    FROM free_slots AS s
    JOIN free_numbers AS n ON n.session_no = s.session_no AND n.turn = s.turn
),

-- 3. What is left over: rows nobody was heard of for, and numbers nobody announced.
involved_matched AS (
    SELECT a.*, d.number, true AS is_announced
    FROM announced AS a
    LEFT JOIN dealt AS d ON d.session_no = a.session_no AND d.slot = a.slot
    UNION ALL BY NAME
    SELECT
        a.* REPLACE (
            NULL AS recipient, NULL AS phone, NULL AS country, NULL AS "operator",
            NULL AS number_type
        ),
        n.number,
        false AS is_announced
    FROM numbers AS n
    JOIN announced AS a ON a.session_no = n.session_no AND a.slot = 1
    ANTI JOIN dealt AS d ON d.session_no = n.session_no AND d.number = n.number
),

-- 4. Names for those not heard of; and the plain sessions, where there is nothing to match.
matched AS (
    SELECT
        * REPLACE (
            coalesce(
                recipient,
                nullif(number, ''),
                'unheard-' || row_number() OVER (
                    PARTITION BY session_no, recipient IS NULL AND nullif(number, '') IS NULL
                    ORDER BY slot
                )
            ) AS recipient
        )
    FROM involved_matched
    UNION ALL BY NAME
    SELECT
        k.* EXCLUDE (recipients, ordinal, key)
            REPLACE (coalesce(k.recipient, n.number, 'unheard-1') AS recipient),
        1 AS slots_in_session,
        n.number,
        true AS is_announced
    FROM keyed AS k
    ANTI JOIN involved AS i ON i.key = k.key
    LEFT JOIN heard AS n ON n.session_no = k.session_no
),

evidence AS (
    SELECT
        m.* EXCLUDE (phone, country, "operator", number_type),
        coalesce(m.phone, n.phone) AS phone,
        coalesce(m.country, n.country) AS country,
        coalesce(m."operator", n."operator") AS "operator",
        coalesce(m.number_type, n.number_type) AS number_type,
        -- a receipt without a phone speaks for the only recipient of its session
        CASE
            WHEN m.slots_in_session > 1 OR NOT m.is_announced OR z.final IS NULL THEN n.final
            WHEN n.final IS NULL OR z.final < n.final THEN z.final
            ELSE n.final
        END AS final,
        CASE
            WHEN m.slots_in_session = 1 AND m.is_announced
                THEN list_concat(coalesce(n.finals_seen, []), coalesce(z.finals_seen, []))
            ELSE coalesce(n.finals_seen, [])
        END AS finals_seen,
        n."open" AS own_open,
        z."open" AS session_open,
        CASE
            WHEN a.session_no IS NOT NULL THEN a.session_submit_status
            ELSE coalesce(n.session_submit_status, z.session_submit_status)
        END AS session_submit_status,
        coalesce(a.first_asked_at, n.first_asked_at, z.first_asked_at) AS first_asked_at,
        coalesce(a.last_asked_at, n.last_asked_at, z.last_asked_at) AS last_asked_at
    FROM matched AS m
    LEFT JOIN {{registers}} AS n ON n.session_no = m.session_no AND n.number = m.number
    LEFT JOIN session_state AS z ON z.session_no = m.session_no
    LEFT JOIN asked AS a ON a.session_no = m.session_no
),

-- What was said of the session as a whole ends with the next answer about it, though that may have
-- left nothing but the rows of its receipts.
latest AS (
    SELECT
        * EXCLUDE (own_open, session_open),
        CASE
            WHEN session_open.asked_at < last_asked_at THEN own_open
            WHEN own_open IS NULL THEN session_open
            WHEN session_open.status = 'invalid' AND session_open.asked_at > own_open.asked_at
                THEN session_open
            ELSE own_open
        END AS "open"
    FROM evidence
),

judged AS (
    SELECT
        *,
        coalesce(final, "open") AS answer,
        final IS NOT NULL AS is_final,
        session_no IS NULL
        OR coalesce("open".status = 'invalid', false)
        OR coalesce(last_asked_at >= sent_at + to_seconds({{cutoff_seconds}}), false) AS is_done,
        CASE
            WHEN session_no IS NULL THEN 'invalid'
            WHEN final IS NOT NULL THEN final.status
            ELSE coalesce("open".status, 'pending')
        END AS word_status
    FROM latest
)

SELECT
    session_no,
    recipient,
    phone,
    country,
    "operator",
    number_type,
    sent_at,
    {{carried}}
    CASE WHEN is_done AND word_status = 'pending' THEN 'unknown' ELSE word_status END AS status,
    is_final,
    is_done AND NOT is_final AS is_closed,
    answer.word AS provider_status,
    answer.code AS provider_code,
    answer.description AS provider_desc,
    coalesce(answer.submit_status, session_submit_status) AS submit_status,
    answer.received_at AS received_at,
    CASE
        WHEN word_status = 'delivered'
            THEN (epoch_us(answer.received_at) - epoch_us(sent_at)) / 1e6
    END AS delivery_seconds,
    answer.segments AS segments,
    first_asked_at,
    last_asked_at,
    final.asked_at AS final_at,
    CASE
        WHEN is_final
            THEN list_sort(list_distinct(list_filter(finals_seen, lambda s: s <> word_status)))
        ELSE []
    END AS conflicts,
    is_announced
FROM judged
