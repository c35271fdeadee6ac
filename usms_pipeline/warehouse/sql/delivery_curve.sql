-- delivery_curve(…): the share of messages delivered within n seconds of sending, with
-- messages that have no final status yet counted for as long as they were watched, and no longer.
--
--   FROM delivery_curve();
--   FROM delivery_curve(first := '2024-03-01', last := '2024-03-07', seconds := [60, 3600]);
--   FROM delivery_curve_by('country');
--
-- Estimator: Aalen and Johansen's cumulative incidence (Scand. J. Statist. 5, 1978, 141-150), of
-- "delivered" with failed, rejected and expired as the competing final statuses. With no message
-- open it is the plain share. Kaplan-Meier with failures as censored would say too much: it tells
-- what would arrive if nothing failed. At each time t with a final status, n messages still
-- watched:
--   S(t) = S(t-) · (1 - finals at t / n)     delivered(t) = delivered(t-) + S(t-) · deliveries / n
--
-- A message leaves at received_at, else (or where that is before its sending) at the answer that
-- brought its final status; without a final status it leaves, censored, at the latest question that
-- was answered. Times are rounded up to whole seconds, which is what receipts have. Never asked or
-- `invalid`: nobody watched it; left out. Only recipients in your table, as everywhere.
--
-- A carrier that tells final statuses long after it dates them (at night, in lots) has not yet told
-- what came lately. All its messages, those with a final status too, or the quick ones would be
-- taken for all, are watched up to where its telling is complete: as long ago as it took, of 99 in
-- 100 final statuses dated before a question that found nothing, until a question found them.
--
-- A final status without a time of its own came unseen at some moment before the answer that
-- brought it. The shares are NULL at moments at which that may be so of more than one in a hundred
-- messages: where no final status has a time, below the first question and between some of the
-- next.
--
-- Grain: one row a cohort and a number of seconds. at_risk: messages watched that long without an
-- earlier final status. delivered, not_delivered: final statuses seen within that time (counts).
-- delivered_share, not_delivered_share: the estimates, NULL also past the longest watch.

-- Round figures, about as many of seconds as of minutes and hours.
CREATE OR REPLACE MACRO usms_curve_seconds() AS [
    1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 60, 90, 120, 150, 180, 240, 300, 360, 480,
    600, 720, 900, 1200, 1500, 1800, 2400, 3000, 3600, 5400, 7200, 9000, 10800, 12600, 14400, 18000,
    21600, 28800, 36000, 43200, 57600, 72000, 86400, 129600, 172800, 216000, 259200
];

-- `watched` names a relation (cohort, left_after, unseen_from, is_final, is_delivered), one row a
-- message. The seconds asked for join the moments at which somebody leaves, as moments when nobody
-- does.
CREATE OR REPLACE MACRO usms_curve(watched, seconds) AS TABLE
WITH moments AS (
    SELECT
        cohort,
        left_after AS moment,
        count(*) AS leaving,
        count(*) FILTER (is_final) AS outcomes,
        count(*) FILTER (is_delivered) AS deliveries,
        -count(unseen_from) AS unseen,
        false AS is_asked_for
    FROM query_table(watched)
    GROUP BY cohort, left_after
    UNION ALL
    SELECT cohort, unseen_from, 0, 0, 0, count(*), false
    FROM query_table(watched)
    WHERE unseen_from IS NOT NULL
    GROUP BY cohort, unseen_from
    UNION ALL
    SELECT cohort, unnest(seconds)::DOUBLE, 0, 0, 0, 0, true
    FROM (SELECT DISTINCT cohort FROM query_table(watched))
),
risks AS (
    SELECT
        cohort,
        moment,
        bool_or(is_asked_for) AS is_asked_for,
        sum(outcomes) AS outcomes,
        sum(deliveries) AS deliveries,
        sum(sum(leaving)) OVER (PARTITION BY cohort ORDER BY moment DESC) AS at_risk,
        sum(sum(unseen)) OVER (PARTITION BY cohort ORDER BY moment)
        > 0.01 * sum(sum(leaving)) OVER (PARTITION BY cohort) AS is_unseen
    FROM moments
    GROUP BY cohort, moment
),
survivals AS (
    SELECT *, product(1 - outcomes / nullif(at_risk, 0)) OVER so_far AS still_open
    FROM risks
    WINDOW so_far AS (PARTITION BY cohort ORDER BY moment)
),
weights AS (
    -- Not lag(still_open, 1, 1): DuckDB 1.5 can't read that in a file that 2.0 wrote.
    SELECT *, coalesce(lag(still_open) OVER so_far, 1) / nullif(at_risk, 0) AS weight
    FROM survivals
    WINDOW so_far AS (PARTITION BY cohort ORDER BY moment)
),
shares AS (
    SELECT
        *,
        is_unseen OR (at_risk = 0 AND still_open > 0) AS is_unknown,
        sum(deliveries) OVER so_far AS delivered,
        sum(outcomes - deliveries) OVER so_far AS not_delivered,
        sum(deliveries * weight) OVER so_far AS delivered_share,
        sum((outcomes - deliveries) * weight) OVER so_far AS not_delivered_share
    FROM weights
    WINDOW so_far AS (PARTITION BY cohort ORDER BY moment)
)
SELECT
    cohort,
    moment AS seconds,
    at_risk::BIGINT AS at_risk,
    delivered::BIGINT AS delivered,
    not_delivered::BIGINT AS not_delivered,
    CASE WHEN NOT is_unknown THEN delivered_share END AS delivered_share,
    CASE WHEN NOT is_unknown THEN not_delivered_share END AS not_delivered_share
FROM shares
WHERE is_asked_for
ORDER BY cohort, moment;

CREATE OR REPLACE MACRO usms_left_at(r) AS
CASE
    WHEN NOT r.is_final THEN r.last_asked_at
    WHEN r.received_at >= r.sent_at THEN r.received_at
    ELSE r.final_at
END;

-- Seconds after sending at which a message left the watch; NULL for one that nobody watched.
-- greatest() ignores NULLs; so there is a condition.
CREATE OR REPLACE MACRO usms_left_after(r) AS CASE
    WHEN r.is_announced AND r.status <> 'invalid' AND usms_left_at(r) IS NOT NULL
        THEN greatest(0, ceil(epoch(usms_left_at(r) - r.sent_at)))
END;

-- Seconds after sending from which on a final status without a time of its own may have come unseen.
CREATE OR REPLACE MACRO usms_unseen_from(r) AS CASE
    WHEN r.is_final AND coalesce(r.received_at < r.sent_at, true)
        THEN greatest(0, coalesce(ceil(epoch(r.last_open_at - r.sent_at)), 0))
END;

-- The messages that somebody watched, of these days of sending. Grain: message.
CREATE OR REPLACE MACRO usms_watched_messages(first, last) AS TABLE
WITH usms_lags AS (
    SELECT
        "operator" AS carrier,
        country,
        to_microseconds(quantile_disc(CASE
            WHEN last_open_at > received_at THEN epoch_us(final_at) - epoch_us(received_at) ELSE 0
        END, 0.99)) AS lag
    FROM usms_named()
    WHERE is_final AND received_at >= sent_at
    GROUP BY "operator", country
    HAVING lag > INTERVAL 0 HOUR
),
usms_newest AS (SELECT max(last_asked_at) AS asked_at FROM receipts),
usms_messages AS (
    SELECT
        r.*,
        usms_left_after(r) AS usms_left_after,
        usms_unseen_from(r) AS usms_unseen_from,
        floor(epoch(usms_newest.asked_at - usms_lags.lag - r.sent_at)) AS usms_told_up_to
    FROM usms_named() AS r
    CROSS JOIN usms_newest
    LEFT JOIN usms_lags
        ON usms_lags.carrier IS NOT DISTINCT FROM r."operator"
        AND usms_lags.country IS NOT DISTINCT FROM r.country
)
SELECT
    * EXCLUDE (usms_left_after, usms_told_up_to),
    least(usms_left_after, usms_told_up_to) AS usms_left_after,
    is_final AND coalesce(usms_left_after <= usms_told_up_to, true) AS usms_is_seen
FROM usms_messages
WHERE
    usms_left_after IS NOT NULL
    AND coalesce(usms_told_up_to >= 0, true)
    AND usms_is_between(sent_date, first, last);

CREATE OR REPLACE MACRO delivery_curve(
    seconds := usms_curve_seconds(), first := NULL, last := NULL
) AS TABLE
WITH watched AS (
    SELECT
        NULL AS cohort,
        usms_left_after AS left_after,
        CASE WHEN usms_is_seen THEN usms_unseen_from END AS unseen_from,
        usms_is_seen AS is_final,
        usms_is_seen AND status = 'delivered' AS is_delivered
    FROM usms_watched_messages(first, last)
)
SELECT * EXCLUDE (cohort) FROM usms_curve(watched, seconds);

COMMENT ON MACRO TABLE delivery_curve IS
'share delivered within n seconds of sending; open messages are censored (Aalen-Johansen)';

-- The same for each value of the column named, exactly so; the value is text, in `cohort`.
CREATE OR REPLACE MACRO delivery_curve_by(
    column_name, seconds := usms_curve_seconds(), first := NULL, last := NULL
) AS TABLE
WITH watched AS (
    SELECT
        COLUMNS([usms_column(column_name)])::VARCHAR AS cohort,
        usms_left_after AS left_after,
        CASE WHEN usms_is_seen THEN usms_unseen_from END AS unseen_from,
        usms_is_seen AS is_final,
        usms_is_seen AND status = 'delivered' AS is_delivered
    FROM usms_watched_messages(first, last)
)
SELECT * FROM usms_curve(watched, seconds);

COMMENT ON MACRO TABLE delivery_curve_by IS
'delivery_curve for each value of any column';
