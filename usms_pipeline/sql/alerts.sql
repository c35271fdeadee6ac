-- delivery_alerts: what fails, or stays silent, beyond chance in the last 72 hours of sending,
-- against the same group's own 28 days before them.
--
--   FROM delivery_alerts;
--
-- Two kinds. `failing`: too many of the messages with an outcome were not delivered. `silent`: of
-- too many messages nothing was said within an hour. Looked at are all messages together and each
-- operator, country and value of a dimension, over each 1, 6 and 24 hours.
--
-- A window is out of line when so much or more would come by chance less than once in a thousand
-- looks at everything (Bonferroni, over all windows looked at): Chernoff's bound of the binomial,
-- exp(-n · KL(share ‖ usual)), its exponent divided by how much more than by chance the group's
-- windows differed before (mean of z², the highest 2 % left aside, for they may be trouble
-- themselves). The bound is never less than the truth. And it is at least five messages and one in
-- a hundred more than usual: less is not worth waking anyone.
--
-- Nothing is said of a group with under a hundred messages before, and of messages too young: an
-- hour counts as silent or not when an hour and a half has passed since its end.
--
-- Grain: kind and group, the one furthest out of line first: trouble of one operator shows in its
-- country too, and less clearly there (of two alike, the operator comes first). since, until: the hours out of line (until: their end).
-- messages, affected, share: in the window furthest out of line. chance: the bound, corrected.

CREATE OR REPLACE MACRO usms_hour(t) AS epoch_us(t) // 3600000000;

CREATE OR REPLACE MACRO usms_divergence(share, usual) AS
CASE WHEN share > 0 THEN share * ln(share / usual) ELSE 0 END
+ CASE WHEN share < 1 THEN (1 - share) * ln((1 - share) / (1 - usual)) ELSE 0 END;

-- The messages of the days looked at; names that no column of yours has. Grain: message.
CREATE OR REPLACE MACRO usms_lately() AS TABLE
SELECT
    r.*,
    'all messages' AS usms_everything,
    usms_hour(r.sent_at) AS usms_hour,
    newest.hour AS usms_now,
    usms_shown_after(r) AS usms_shown_after,
    r.is_final OR r.last_asked_at >= r.sent_at + INTERVAL 1 HOUR AS usms_is_watched
FROM receipts AS r, (SELECT usms_hour(max(last_asked_at)) AS hour FROM receipts) AS newest
WHERE
    r.is_announced
    AND r.status <> 'invalid'
    AND usms_hour(r.sent_at) > newest.hour - 31 * 24;

-- `counts` names a relation (by_column, cohort, hour, now, kind, messages, affected).
CREATE OR REPLACE MACRO usms_alerts(counts) AS TABLE
WITH sizes AS (SELECT unnest([1, 6, 24]) AS size),
windows AS (
    SELECT
        c.by_column,
        c.cohort,
        c.kind,
        s.size,
        c.hour,
        c.now,
        c.hour > c.now - 72 AS is_new,
        sum(c.messages) OVER lately AS messages,
        sum(c.affected) OVER lately AS affected
    FROM query_table(counts) AS c, sizes AS s
    WINDOW lately AS (
        PARTITION BY c.by_column, c.cohort, c.kind, s.size
        ORDER BY c.hour
        RANGE BETWEEN s.size - 1 PRECEDING AND CURRENT ROW
    )
),
before AS (
    SELECT
        by_column,
        cohort,
        kind,
        sum(messages) AS messages,
        (sum(affected) + 0.5) / (sum(messages) + 1) AS usual
    FROM query_table(counts)
    WHERE hour <= now - 72
    GROUP BY by_column, cohort, kind
    HAVING sum(messages) >= 100
),
deviations AS (
    SELECT
        w.by_column,
        w.cohort,
        w.kind,
        w.size,
        (w.affected - w.messages * b.usual) ** 2
        / (w.messages * b.usual * (1 - b.usual)) AS squared
    FROM windows AS w
    JOIN before AS b USING (by_column, cohort, kind)
    WHERE NOT w.is_new AND w.hour % w.size = w.size - 1 AND w.messages > 0
),
highest AS (
    SELECT by_column, cohort, kind, size, quantile_cont(squared, 0.98) AS squared
    FROM deviations
    GROUP BY by_column, cohort, kind, size
),
excess AS (
    SELECT by_column, cohort, kind, size, greatest(1, avg(d.squared)) AS factor
    FROM deviations AS d
    JOIN highest AS h USING (by_column, cohort, kind, size)
    WHERE d.squared <= h.squared
    GROUP BY by_column, cohort, kind, size
),
looks AS (
    SELECT
        w.*,
        b.usual,
        w.affected / w.messages AS share,
        CASE
            WHEN w.affected > w.messages * b.usual
                THEN -w.messages * usms_divergence(w.affected / w.messages, b.usual)
                    / coalesce(e.factor, 1)
            ELSE 0
        END AS log_chance
    FROM windows AS w
    JOIN before AS b USING (by_column, cohort, kind)
    LEFT JOIN excess AS e USING (by_column, cohort, kind, size)
    WHERE w.is_new AND w.messages > 0
),
corrected AS (
    SELECT *, log_chance + ln(count(*) OVER ()) AS log_corrected
    FROM looks
),
out_of_line AS (
    SELECT *
    FROM corrected
    WHERE
        log_corrected < ln(0.001)
        AND affected - messages * usual >= 5
        AND share - usual >= 0.01
)
SELECT
    kind,
    by_column,
    cohort,
    make_timestamptz(3600000000 * coalesce(
        min(hour) FILTER (size = 1),
        arg_min(hour - size + 1, log_corrected)
    )) AS since,
    make_timestamptz(3600000000 * (1 + coalesce(
        max(hour) FILTER (size = 1),
        arg_min(hour, log_corrected)
    ))) AS until,
    arg_min(messages, log_corrected)::BIGINT AS messages,
    arg_min(affected, log_corrected)::BIGINT AS affected,
    arg_min(share, log_corrected) AS share,
    any_value(usual) AS usual_share,
    exp(min(log_corrected)) AS chance
FROM out_of_line
GROUP BY kind, by_column, cohort
ORDER BY min(log_corrected), by_column = 'everything', by_column DESC, cohort;

-- By any column of usms_lately, named exactly; the value is text, in `cohort`.
CREATE OR REPLACE MACRO usms_counts_by(column_name) AS TABLE
WITH members AS (
    SELECT
        COLUMNS(lambda c: c = column_name)::VARCHAR AS cohort,
        m.country,
        m.usms_hour AS hour,
        m.usms_now AS now,
        m.is_final,
        m.is_final AND m.status <> 'delivered' AS is_failure,
        m.usms_is_watched AND m.usms_hour < m.usms_now - 1 AS is_watched,
        coalesce(m.usms_shown_after > 3600, true) AS is_silent
    FROM usms_lately() AS m
),
named AS (
    SELECT * REPLACE (usms_label(column_name, cohort, country) AS cohort) FROM members
),
counted AS (
    SELECT
        cohort,
        hour,
        any_value(now) AS now,
        {
            messages: count(*) FILTER (is_final),
            affected: count(*) FILTER (is_failure)
        } AS failing,
        {
            messages: count(*) FILTER (is_watched),
            affected: count(*) FILTER (is_watched AND is_silent)
        } AS silent
    FROM named
    WHERE cohort IS NOT NULL
    GROUP BY cohort, hour
)
SELECT
    replace(column_name, 'usms_', '') AS by_column,
    cohort,
    hour,
    now,
    kind,
    CASE kind WHEN 'failing' THEN failing.messages ELSE silent.messages END AS messages,
    CASE kind WHEN 'failing' THEN failing.affected ELSE silent.affected END AS affected
FROM counted, (SELECT unnest(['failing', 'silent']) AS kind);
