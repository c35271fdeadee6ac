-- delivery_rate_change_by(column_name): the latest seven settled days against the seven before.
-- Settled: nothing sent up to that day's end is awaited, so that no week looks good for being young
-- (but for a straggler that nobody hears of for a day after the cutoff). A day that may not be over
-- is not settled (usms_newest_day()).
--
--   FROM delivery_rate_change_by('operator') WHERE change_high < 0;
--
-- The interval (95 %) of the change is Newcombe's, of two Wilson intervals (Statist. Med. 17, 1998,
-- 873-890, method 10). Where it does not hold 0, the change is more than chance.
--
-- Grain: one value of the column named, exactly so; the value is text, in `cohort`. Announced
-- recipients only. No row where either week has no messages with an outcome.

CREATE OR REPLACE MACRO delivery_rate_change_by(column_name) AS TABLE
WITH newest AS (
    SELECT usms_newest_day() AS day, max(last_asked_at) AS asked_at
    FROM receipts
    WHERE status <> 'invalid'
),
days AS (
    SELECT
        r.sent_date,
        count(*) FILTER (
            NOT r.is_final
            AND NOT r.is_closed
            AND coalesce(r.sent_at + usms_cutoff() > n.asked_at - INTERVAL 1 DAY, true)
        ) AS awaited
    FROM receipts AS r, newest AS n
    WHERE r.is_announced AND r.sent_date < n.day
    GROUP BY r.sent_date
),
latest AS (
    SELECT max(sent_date) AS last_day
    FROM days
    WHERE sent_date < coalesce((SELECT min(sent_date) FROM days WHERE awaited > 0), 'infinity')
),
settled AS (  -- two whole weeks, or none
    SELECT last_day FROM latest WHERE last_day - 13 >= (SELECT min(sent_date) FROM days)
),
members AS (
    SELECT
        nullif(COLUMNS(lambda c: c = column_name)::VARCHAR, '') AS cohort,
        s.last_day,
        r.sent_date > s.last_day - 7 AS is_latest,
        r.is_final,
        r.status = 'delivered' AS is_delivered
    FROM usms_named() AS r, settled AS s
    WHERE
        r.is_announced
        AND r.sent_date BETWEEN s.last_day - 13 AND s.last_day
),
weeks AS (
    SELECT
        cohort,
        any_value(last_day) AS last_day,
        count(*) FILTER (is_latest) AS messages,
        count(*) FILTER (NOT is_latest) AS messages_before,
        count(*) FILTER (is_latest AND is_final) AS n,
        count(*) FILTER (is_latest AND is_delivered) AS k,
        count(*) FILTER (NOT is_latest AND is_final) AS n_before,
        count(*) FILTER (NOT is_latest AND is_delivered) AS k_before
    FROM members
    GROUP BY ALL
)
SELECT
    cohort,
    last_day - 6 AS first_day,
    last_day,
    messages,
    messages_before,
    k / n AS delivery_rate,
    k_before / n_before AS delivery_rate_before,
    k / n - k_before / n_before AS change,
    k / n - k_before / n_before - sqrt(
        (k / n - wilson_low(k, n)) ** 2
        + (wilson_high(k_before, n_before) - k_before / n_before) ** 2
    ) AS change_low,
    k / n - k_before / n_before + sqrt(
        (wilson_high(k, n) - k / n) ** 2
        + (k_before / n_before - wilson_low(k_before, n_before)) ** 2
    ) AS change_high
FROM weeks
WHERE n > 0 AND n_before > 0
ORDER BY messages DESC, cohort;

COMMENT ON MACRO TABLE delivery_rate_change_by IS
'the latest seven settled days against the seven before, by any column, named exactly';
