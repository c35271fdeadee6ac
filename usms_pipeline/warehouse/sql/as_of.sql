-- as_of(t): `receipts` as the service's answers up to t tell it, for the messages known today.
--
--   SELECT sent_date, unnest(delivery_figures(r))
--   FROM as_of('2024-03-01 12:00:00+00') AS r WHERE sent_at <= '2024-03-01 12:00:00+00'
--   GROUP BY sent_date
--
-- Grain and columns: those of `receipts`. Messages sent after t are there too, as pending.

-- What the answers up to t say of a row, in one word:
--   evidence  the answer with the final status came by t
--   same      no final status yet, and not asked since (or never): t saw what is seen today
--   closed    no final status by t, and an answered question lies between the cutoff and t
--   open      none of these
-- Of the questions only the first, the latest that left something open and the one with the final
-- status are kept, so a message asked again after t may have been closed by a question in between
-- that nobody remembers: it is called open.
CREATE OR REPLACE MACRO usms_known_at(r, t) AS CASE
    WHEN r.is_final AND r.final_at <= t THEN 'evidence'
    WHEN NOT r.is_final AND coalesce(r.last_asked_at <= t, true) THEN 'same'
    WHEN r.first_asked_at BETWEEN r.sent_at + usms_cutoff() AND t THEN 'closed'
    WHEN r.last_open_at BETWEEN r.sent_at + usms_cutoff() AND t THEN 'closed'
    ELSE 'open'
END;

-- A value that came with the latest answer: NULL where that answer is later.
CREATE OR REPLACE MACRO usms_if_known(r, value) AS
CASE WHEN r.usms_known IN ('evidence', 'same') THEN value END;

CREATE OR REPLACE MACRO as_of(t) AS TABLE
WITH told AS (
    SELECT
        r.*,
        usms_known_at(r, t::TIMESTAMPTZ) AS usms_known,
        r.sent_at + to_microseconds((1e6 * usms_asked_by(r, t::TIMESTAMPTZ))::BIGINT)
            AS usms_asked_by
    FROM receipts AS r
)
SELECT r.* EXCLUDE (usms_known, usms_asked_by) REPLACE (
    CASE r.usms_known
        WHEN 'closed' THEN 'unknown'
        WHEN 'open' THEN 'pending'
        ELSE r.status
    END AS status,
    r.usms_known = 'evidence' AS is_final,
    CASE r.usms_known WHEN 'same' THEN r.is_closed ELSE r.usms_known = 'closed' END AS is_closed,
    usms_if_known(r, r.provider_status) AS provider_status,
    usms_if_known(r, r.provider_code) AS provider_code,
    usms_if_known(r, r.provider_desc) AS provider_desc,
    usms_if_known(r, r.submit_status) AS submit_status,
    usms_if_known(r, r.received_at) AS received_at,
    usms_if_known(r, r.delivery_seconds) AS delivery_seconds,
    usms_if_known(r, r.segments) AS segments,
    usms_if_known(r, r.final_at) AS final_at,
    CASE WHEN r.first_asked_at <= t::TIMESTAMPTZ THEN r.first_asked_at END AS first_asked_at,
    CASE
        WHEN r.usms_known = 'evidence'
            THEN CASE WHEN r.last_asked_at <= t::TIMESTAMPTZ THEN r.last_asked_at ELSE r.final_at END
        WHEN r.first_asked_at <= t::TIMESTAMPTZ THEN r.usms_asked_by
    END AS last_asked_at,
    CASE
        WHEN r.last_open_at <= t::TIMESTAMPTZ THEN r.last_open_at
        WHEN r.first_asked_at <= t::TIMESTAMPTZ AND r.first_asked_at < r.last_open_at
            THEN r.usms_asked_by
    END AS last_open_at,
    CASE WHEN r.last_asked_at <= t::TIMESTAMPTZ THEN r.conflicts ELSE [] END AS conflicts
)
FROM told AS r;

COMMENT ON MACRO TABLE as_of IS
'receipts as they were known at a time, for the messages known today';
