-- One partition's sessions: what is stored, and what was read now, which wins where both have a row.
-- A row once seen is never dropped. Grain: source row, told apart by (session_no, recipient,
-- sent_at) and, among rows alike in these, by ordinal. A row whose session number was filled in
-- since, or whose phone was filled in or blanked since, is the same row.
-- Only sessions with a row that is not stored as it was read need any of this, and the rows
-- without a session number; they are told apart by a hash, whose collisions do no harm.
-- changed_in: the version of the file in which a session changed. Those involved change now; where
-- versions are counted anew, all are of the first.
-- Filled in: {{columns}} (comma list), {{alike}} (but the ordinal), {{chosen}} (each column from the
-- read row, else the stored one), $version. Tables: read_now, stored.
WITH news AS (
    SELECT {{columns}} FROM read_now EXCEPT ALL SELECT {{columns}} FROM stored
),

involved AS (
    SELECT DISTINCT hash(session_no) AS key FROM news
    UNION
    SELECT hash(NULL::VARCHAR) AS key
),

arrived AS (
    SELECT *, hash(session_no, recipient, sent_at) AS key
    FROM read_now WHERE hash(session_no) IN (FROM involved)
),

stored_rows AS (SELECT * FROM stored WHERE hash(session_no) IN (FROM involved)),

-- 0. Of rows alike in session, recipient and time, one that is stored just as it was read keeps its
-- ordinal, whatever became of the others; these take the free ones, in their order.
repeated AS (
    SELECT key FROM arrived GROUP BY key HAVING count(*) > 1
    UNION
    SELECT hash(session_no, recipient, sent_at) AS key FROM stored_rows
    GROUP BY key HAVING count(*) > 1
),

compared AS (
    SELECT *, row_number() OVER (PARTITION BY is_stored, {{alike}} ORDER BY ordinal) AS copy
    FROM (
        SELECT false AS is_stored, {{columns}} FROM arrived SEMI JOIN repeated USING (key)
        UNION ALL
        SELECT true AS is_stored, {{columns}} FROM stored_rows
        WHERE hash(session_no, recipient, sent_at) IN (FROM repeated)
    )
),

pairs AS (
    SELECT
        session_no,
        recipient,
        sent_at,
        max(ordinal) FILTER (NOT is_stored) AS read_ordinal,
        max(ordinal) FILTER (is_stored) AS stored_ordinal
    FROM compared
    GROUP BY {{alike}}, copy
    HAVING count(*) FILTER (NOT is_stored) > 0
),

free_ordinals AS (
    SELECT
        *, row_number() OVER (PARTITION BY session_no, recipient, sent_at ORDER BY ordinal) AS turn
    FROM (
        SELECT session_no, recipient, sent_at, unnest(range(many)) AS ordinal
        FROM (
            SELECT
                session_no, recipient, sent_at,
                count(*) + coalesce(max(stored_ordinal), -1) + 1 AS many
            FROM pairs GROUP BY session_no, recipient, sent_at
        )
        EXCEPT
        SELECT session_no, recipient, sent_at, stored_ordinal FROM pairs
    )
),

ordinals AS (
    SELECT p.* EXCLUDE (stored_ordinal, turn), coalesce(p.stored_ordinal, f.ordinal) AS ordinal
    FROM (
        SELECT
            *,
            row_number() OVER (
                PARTITION BY session_no, recipient, sent_at, stored_ordinal IS NULL
                ORDER BY read_ordinal
            ) AS turn
        FROM pairs
    ) AS p
    LEFT JOIN free_ordinals AS f
        ON p.session_no IS NOT DISTINCT FROM f.session_no
        AND p.recipient IS NOT DISTINCT FROM f.recipient
        AND p.sent_at = f.sent_at
        AND p.turn = f.turn
),

read_rows AS (
    SELECT a.* EXCLUDE (key) REPLACE (coalesce(o.ordinal, a.ordinal) AS ordinal)
    FROM arrived AS a
    LEFT JOIN ordinals AS o
        ON a.session_no IS NOT DISTINCT FROM o.session_no
        AND a.recipient IS NOT DISTINCT FROM o.recipient
        AND a.sent_at = o.sent_at
        AND a.ordinal = o.read_ordinal
),

read_keys AS (SELECT session_no, recipient, sent_at, ordinal FROM read_rows),

stored_keys AS (SELECT session_no, recipient, sent_at, ordinal FROM stored_rows),

new_keys AS (FROM read_keys EXCEPT FROM stored_keys),

unread_keys AS (FROM stored_keys EXCEPT FROM read_keys),

-- 1. A row without a session number got one.
numbered AS (
    SELECT n.*, s.session_no AS old_session, s.recipient AS old_recipient, s.ordinal AS old_ordinal
    FROM (
        SELECT *, row_number() OVER (PARTITION BY recipient, sent_at ORDER BY session_no, ordinal)
            AS turn
        FROM new_keys WHERE session_no IS NOT NULL
    ) AS n
    JOIN (
        SELECT *, row_number() OVER (PARTITION BY recipient, sent_at ORDER BY ordinal) AS turn
        FROM unread_keys WHERE session_no IS NULL
    ) AS s
        ON n.recipient IS NOT DISTINCT FROM s.recipient
        AND n.sent_at = s.sent_at
        AND n.turn = s.turn
),

-- 2. A row's phone was filled in, or blanked.
turns AS (
    SELECT
        *,
        row_number() OVER (
            PARTITION BY is_new, session_no, sent_at, recipient IS NULL ORDER BY recipient, ordinal
        ) AS turn
    FROM (
        (
            SELECT true AS is_new, * FROM new_keys
            EXCEPT SELECT true, session_no, recipient, sent_at, ordinal FROM numbered
        )
        UNION ALL
        (
            SELECT false AS is_new, * FROM unread_keys
            EXCEPT SELECT false, old_session, old_recipient, sent_at, old_ordinal FROM numbered
        )
    )
),

replaced AS (
    SELECT * EXCLUDE (turn) FROM numbered
    UNION ALL BY NAME
    SELECT
        n.* EXCLUDE (is_new, turn),
        s.session_no AS old_session,
        s.recipient AS old_recipient,
        s.ordinal AS old_ordinal
    FROM turns AS n
    JOIN turns AS s
        ON n.session_no IS NOT DISTINCT FROM s.session_no
        AND n.sent_at = s.sent_at
        AND n.turn = s.turn
        AND (n.recipient IS NULL) <> (s.recipient IS NULL)
    WHERE n.is_new AND NOT s.is_new
)

SELECT {{chosen}}, $version AS changed_in
FROM read_rows AS n
LEFT JOIN replaced AS r
    ON n.session_no IS NOT DISTINCT FROM r.session_no
    AND n.recipient IS NOT DISTINCT FROM r.recipient
    AND n.sent_at = r.sent_at
    AND n.ordinal = r.ordinal
FULL JOIN stored_rows AS s
    ON CASE WHEN r.ordinal IS NULL THEN n.session_no ELSE r.old_session END
        IS NOT DISTINCT FROM s.session_no
    AND CASE WHEN r.ordinal IS NULL THEN n.recipient ELSE r.old_recipient END
        IS NOT DISTINCT FROM s.recipient
    AND n.sent_at = s.sent_at
    AND coalesce(r.old_ordinal, n.ordinal) = s.ordinal
UNION ALL
SELECT {{columns}}, CASE WHEN $version > 1 THEN changed_in ELSE 1 END AS changed_in
FROM stored WHERE hash(session_no) NOT IN (FROM involved)
