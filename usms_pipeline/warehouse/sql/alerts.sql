-- delivery_alerts: what fails, or stays silent, beyond chance in the last 72 hours of sending,
-- against the same group's own 28 days before them.
--
--   FROM delivery_alerts;
--
-- Two kinds. `failing`: too many of the messages with an outcome were not delivered. `silent`: too
-- many messages had no outcome within an hour. Looked at are all messages together and each
-- operator, country and value of a dimension, over each 1, 3, 6, 12 and 24 hours.
--
-- A window is out of line when its share and the one before differ by more than one share for both
-- would let them: the likelihood ratio of two binomials, exp(-n · KL(share ‖ both) - n before ·
-- KL(usual ‖ both)), so that a short history proves little. Its exponent is divided by how much more
-- than by chance the group's windows differed before (mean of z², the highest 2 % left aside, for
-- they may be trouble themselves), and it is multiplied by the number of windows looked at
-- (Bonferroni): that, called `chance`, must be under one in a thousand. And it is at least five
-- messages and one in a hundred more than usual: less is not worth waking anyone.
--
-- Nothing is said of a group with under a hundred messages before, and of messages too young: an
-- hour counts as silent or not when at least an hour has passed since its end. A message that was
-- first asked about late, and whose outcome has no time of its own, says nothing of silence. (One
-- asked about early, and then late, does: where outcomes have no time, a pause of ours is silence.)
--
-- Grain: kind and group, the one furthest out of line first: trouble of one operator shows in its
-- country too, and less clearly there (of two alike, the operator comes first). since, until (the
-- end of the last hour): the window furthest out of line; messages, affected, share are its own,
-- usual_share is that of the days before.

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
    (r.is_final OR r.last_asked_at >= r.sent_at + INTERVAL 1 HOUR)
    AND NOT (
        r.is_final
        AND coalesce(r.received_at < r.sent_at, true)
        AND r.first_asked_at > r.sent_at + INTERVAL 1 HOUR
    ) AS usms_is_watched
FROM usms_named() AS r, (SELECT usms_hour(max(last_asked_at)) AS hour FROM receipts) AS newest
WHERE
    r.is_announced
    AND r.status <> 'invalid'
    AND usms_hour(r.sent_at) > newest.hour - 31 * 24;

-- `counts` names a relation (by_column, cohort, hour, now, kind, messages, affected).
CREATE OR REPLACE MACRO usms_alerts(counts) AS TABLE
WITH sizes AS (SELECT unnest([1, 3, 6, 12, 24]) AS size),
before AS (
    SELECT
        by_column,
        cohort,
        kind,
        sum(messages) AS messages,
        sum(affected) AS affected,
        (sum(affected) + 0.5) / (sum(messages) + 1) AS usual
    FROM query_table(counts)
    WHERE hour <= now - 72
    GROUP BY by_column, cohort, kind
    HAVING sum(messages) >= 100
),
windows AS (
    SELECT
        c.by_column,
        c.cohort,
        c.kind,
        s.size,
        c.hour,
        c.now,
        c.hour - s.size >= c.now - 72 AS is_new,  -- from its first hour on
        c.hour <= c.now - 72 AS is_before,
        sum(c.messages) OVER lately AS messages,
        sum(c.affected) OVER lately AS affected
    FROM (FROM query_table(counts) SEMI JOIN before USING (by_column, cohort, kind)) AS c, sizes AS s
    WINDOW lately AS (
        PARTITION BY c.by_column, c.cohort, c.kind, s.size
        ORDER BY c.hour
        RANGE BETWEEN s.size - 1 PRECEDING AND CURRENT ROW
    )
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
    WHERE w.is_before AND w.hour % w.size = w.size - 1 AND w.messages > 0
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
        -(
            w.messages * usms_divergence(
                w.affected / w.messages, (w.affected + b.affected) / (w.messages + b.messages)
            )
            + b.messages * usms_divergence(
                b.affected / b.messages, (w.affected + b.affected) / (w.messages + b.messages)
            )
        ) / coalesce(e.factor, 1) AS log_chance
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
    make_timestamptz(3600000000 * (hour - size + 1)) AS since,
    make_timestamptz(3600000000 * (hour + 1)) AS until,
    messages::BIGINT AS messages,
    affected::BIGINT AS affected,
    share,
    usual AS usual_share,
    exp(log_corrected) AS chance
FROM out_of_line
-- of windows alike, for nothing more was sent in the longer one, the shortest
QUALIFY row_number() OVER (
    PARTITION BY kind, by_column, cohort ORDER BY log_corrected, size, hour
) = 1
ORDER BY log_corrected, by_column = 'everything', by_column DESC, cohort;

-- By any column of usms_lately, named exactly; the value is text, in `cohort`.
CREATE OR REPLACE MACRO usms_counts_by(column_name) AS TABLE
WITH members AS NOT MATERIALIZED (
    SELECT
        nullif(COLUMNS(lambda c: c = column_name)::VARCHAR, '') AS cohort,
        m.usms_hour AS hour,
        m.usms_now AS now,
        m.is_final,
        m.is_final AND m.status <> 'delivered' AS is_failure,
        m.usms_is_watched AND m.usms_hour < m.usms_now - 1 AS is_watched,
        coalesce(m.usms_shown_after > 3600, true) AS is_silent
    FROM usms_lately() AS m
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
    FROM members
    -- Before the hours are counted: a column may have a value of its own for every message.
    WHERE cohort IN (SELECT cohort FROM members GROUP BY cohort HAVING count(*) >= 100)
    GROUP BY cohort, hour
)
SELECT
    CASE column_name WHEN 'usms_everything' THEN 'everything' ELSE column_name END AS by_column,
    cohort,
    hour,
    now,
    kind,
    CASE kind WHEN 'failing' THEN failing.messages ELSE silent.messages END AS messages,
    CASE kind WHEN 'failing' THEN failing.affected ELSE silent.affected END AS affected
FROM counted, (SELECT unnest(['failing', 'silent']) AS kind);
