-- delivery_rate_change_by(column_name): the latest seven settled days against the seven before.
-- Settled: nothing sent up to that day's end is awaited, so that no week looks good for being young
-- (but for a straggler that nobody hears of for a day after the cutoff). A day that may not be over
-- is not settled (usms_newest_day()).
--
--   FROM delivery_rate_change_by('operator') WHERE change_high < 0;
--
-- Days differ by more than chance: a campaign, a carrier's bad afternoon. So each day is set beside
-- the same weekday of the week before, and how much those seven differences vary says how sure
-- their mean is. `change` is that mean, weighted by n1 · n2 / (n1 + n2), where n1 and n2 are the
-- two days' messages with a final status; so it is not quite delivery_rate - delivery_rate_before.
-- The interval (95 %) is Student's t, on one degree of freedom less than there are differences.
-- Where it does not hold 0, the weeks differ by more than weeks usually do. NULL with fewer than
-- three weekdays that have final statuses in both weeks.
--
-- Grain: one value of the column named, exactly so; the value is text, in `cohort`. Only
-- recipients in your table. No row where either week has no messages with a final status.

-- Student's t, two-sided 95 %; from 7 degrees of freedom on Cornish and Fisher's series, off by 0.01
-- at 7 and less after.
CREATE OR REPLACE MACRO usms_student(freedom) AS CASE
    WHEN freedom <= 6 THEN [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469][freedom]
    ELSE 1.96 + 2.3724 / freedom + 2.823 / freedom ** 2
END;

-- `counts` names a relation (cohort, sent_date, last_day, messages, n, k) of twice `days` days up to
-- last_day: k of n messages with a final status were delivered. Grain: cohort. The nth day is set
-- beside the nth before; unless `days` are whole weeks the two are different weekdays, which only
-- widens the interval.
CREATE OR REPLACE MACRO usms_changes(counts, days := 7) AS TABLE
WITH weekdays AS (
    SELECT
        cohort,
        last_day,
        coalesce(sum(messages) FILTER (sent_date > last_day - days), 0) AS messages,
        coalesce(sum(messages) FILTER (sent_date <= last_day - days), 0) AS messages_before,
        coalesce(sum(n) FILTER (sent_date > last_day - days), 0) AS n,
        coalesce(sum(k) FILTER (sent_date > last_day - days), 0) AS k,
        coalesce(sum(n) FILTER (sent_date <= last_day - days), 0) AS n_before,
        coalesce(sum(k) FILTER (sent_date <= last_day - days), 0) AS k_before
    FROM query_table(counts)
    GROUP BY cohort, last_day, (last_day - sent_date) % days
),
differences AS (
    SELECT
        *,
        k / nullif(n, 0) - k_before / nullif(n_before, 0) AS difference,
        n * n_before / nullif(n + n_before, 0) AS weight
    FROM weekdays
),
weeks AS (
    SELECT
        cohort,
        last_day,
        sum(messages)::BIGINT AS messages,
        sum(messages_before)::BIGINT AS messages_before,
        sum(k) / nullif(sum(n), 0) AS rate,
        sum(k_before) / nullif(sum(n_before), 0) AS rate_before,
        count(difference) AS pairs,
        sum(weight * difference) / nullif(sum(weight), 0) AS change,
        sum(weight * difference ** 2) / nullif(sum(weight), 0) AS mean_square
    FROM differences
    GROUP BY cohort, last_day
),
reaches AS (
    SELECT
        *,
        CASE
            -- Not below 0: that is only how the two squares were rounded.
            WHEN pairs >= 3 THEN usms_student(pairs - 1)
                * sqrt(greatest(0, mean_square - change ** 2) / (pairs - 1))
        END AS reach
    FROM weeks
)
SELECT
    cohort,
    last_day - days + 1 AS first_day,
    last_day,
    messages,
    messages_before,
    rate AS delivery_rate,
    rate_before AS delivery_rate_before,
    change,
    change - reach AS change_low,
    change + reach AS change_high
FROM reaches
WHERE rate IS NOT NULL AND rate_before IS NOT NULL
ORDER BY messages DESC, cohort;

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
        nullif(COLUMNS([usms_column(column_name)])::VARCHAR, '') AS cohort,
        r.sent_date,
        s.last_day,
        r.is_final,
        r.status = 'delivered' AS is_delivered
    FROM usms_named() AS r, settled AS s
    WHERE
        r.is_announced
        AND r.sent_date BETWEEN s.last_day - 13 AND s.last_day
),
counts AS (
    SELECT
        cohort,
        sent_date,
        last_day,
        count(*) AS messages,
        count(*) FILTER (is_final) AS n,
        count(*) FILTER (is_delivered) AS k
    FROM members
    GROUP BY ALL
)
FROM usms_changes(counts);

COMMENT ON MACRO TABLE delivery_rate_change_by IS
'the latest seven settled days compared with the seven before, by any column';
