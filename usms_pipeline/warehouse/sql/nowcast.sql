-- delivery_nowcast…: what a young group's delivery rate will be in the end; and maturity(): how
-- complete a group of messages usually is so long after sending. Both from our own messages.
--
--   FROM delivery_nowcast_daily ORDER BY sent_date DESC;
--   FROM delivery_nowcast_by('country');
--   FROM maturity();
--
-- A chain ladder with two outcomes (delivered or not). Age is cut into steps. Of all messages that
-- were still open at the beginning of a step, and watched to its end, a share is told to be
-- delivered in it and a share not to be: the step's hazards. Chained from a message's present age to
-- the cutoff they are its chances. An open message takes part up to the last question that found
-- nothing, so nothing waits for days to settle. Weeks count half of the week after them.
--
-- Hazards are those of the operator and of three hours of the day of sending, drawn towards the
-- operator's whole day as if 10 of its messages were added, and that towards all messages: a small
-- or new operator borrows from the others.
--
-- The interval (95 %) has three parts: chance in each open message; days that differ by more than
-- chance (method of moments, of an operator's days and of all messages' days); and how well the
-- hazards are known. Never outside of what is possible. No figures (NULL) with fewer than 30
-- outcomes to learn from.

-- An hour, without a time zone, so that it is the same for every reader.
CREATE OR REPLACE MACRO usms_hour(t) AS epoch_us(t) // 3600000000;

-- The last question that found nothing before the one with the outcome; else the sending.
CREATE OR REPLACE MACRO usms_open_until(r) AS CASE
    WHEN NOT r.is_final THEN coalesce(r.last_asked_at, r.sent_at)
    WHEN r.last_open_at < r.final_at THEN r.last_open_at
    WHEN r.first_asked_at < r.final_at THEN r.first_asked_at
    ELSE r.sent_at
END;

-- Seconds after sending from which on the service says the outcome, as well as we can tell: when
-- it dates it, but not before the last question that found nothing. NULL without an outcome.
CREATE OR REPLACE MACRO usms_shown_after(r) AS CASE
    WHEN r.is_final THEN greatest(
        0, epoch(usms_open_until(r) - r.sent_at), epoch(least(r.received_at, r.final_at) - r.sent_at)
    )
END;

-- An age in seconds, in steps: of 5 minutes up to an hour, of half an hour up to four hours, and 46
-- from there to the cutoff (of an hour and a half where that is 72 hours); 64 is the cutoff.
CREATE OR REPLACE MACRO usms_steps(seconds) AS CASE
    WHEN seconds < 3600 THEN seconds / 300
    WHEN seconds < 14400 THEN 10 + seconds / 1800
    ELSE least(64, 18 + 46 * (seconds - 14400) / greatest(46 * 1800, epoch(usms_cutoff()) - 14400))
END;

-- `source` names a relation with the columns of receipts. Grain: operator, day and three hours of
-- sending, step in which messages left, and how: so many messages. An outcome leaves in the step
-- that is begun then; an open message after the last whole one; a closed one in step 64.
CREATE OR REPLACE MACRO usms_history(source, history_days) AS TABLE
WITH newest AS (
    SELECT usms_hour(max(last_asked_at)) // 24 AS day
    FROM query_table(source)
    WHERE is_announced AND status <> 'invalid'
)
SELECT
    coalesce(r.country, '') AS country,
    coalesce(r."operator", '') AS "operator",
    usms_hour(r.sent_at) // 24 - n.day AS day,
    usms_hour(r.sent_at) % 24 // 3 AS three_hours,
    CASE
        WHEN r.is_final THEN greatest(0, ceil(usms_steps(usms_shown_after(r))) - 1)
        WHEN r.is_closed THEN 64
        ELSE greatest(0, floor(usms_steps(epoch(usms_open_until(r) - r.sent_at))))
    END::TINYINT AS step,
    CASE WHEN r.is_final THEN r.status = 'delivered' END AS is_delivered,
    count(*) AS messages
FROM query_table(source) AS r, newest AS n
WHERE
    r.is_announced
    AND r.status <> 'invalid'
    AND (usms_hour(r.sent_at) // 24 > n.day - history_days OR NOT (r.is_final OR r.is_closed))
GROUP BY ALL;

-- How much a message of so many days ago counts.
CREATE OR REPLACE MACRO usms_weight(day) AS 0.5 ** (-day / 7);

-- A share k of n, drawn towards another as if 10 messages more were known.
CREATE OR REPLACE MACRO usms_drawn(n, k, towards) AS (k + 10 * towards) / (n + 10);

-- `history` names such a relation. Grain: operator, three hours and step, also those in which
-- nothing happened: the hazards, and how many messages' worth is known of them.
CREATE OR REPLACE MACRO usms_hazards(history) AS TABLE
WITH leaving AS (
    SELECT
        country,
        "operator",
        three_hours,
        step,
        coalesce(sum(messages * usms_weight(day)) FILTER (is_delivered), 0) AS delivered,
        coalesce(sum(messages * usms_weight(day)) FILTER (NOT is_delivered), 0) AS not_delivered,
        coalesce(sum(messages * usms_weight(day)) FILTER (is_delivered IS NULL), 0) AS open
    FROM query_table(history)
    GROUP BY ALL
),
grid AS (
    SELECT * FROM (SELECT DISTINCT country, "operator", three_hours FROM leaving),
        (SELECT unnest(range(64))::TINYINT AS step)
),
watched AS (
    -- who was watched through the step, or had an outcome in it
    SELECT
        country,
        "operator",
        three_hours,
        step,
        coalesce(delivered, 0) AS delivered,
        coalesce(not_delivered, 0) AS not_delivered,
        coalesce(sum(delivered + not_delivered + open) OVER later - coalesce(open, 0), 0) AS messages
    FROM (FROM grid FULL JOIN leaving USING (country, "operator", three_hours, step))
    WINDOW later AS (PARTITION BY country, "operator", three_hours ORDER BY step DESC)
),
levels AS (
    SELECT
        *,
        sum(messages) OVER of_operator AS o_messages,
        sum(delivered) OVER of_operator AS o_delivered,
        sum(not_delivered) OVER of_operator AS o_not_delivered,
        sum(messages) OVER of_all AS a_messages,
        sum(delivered) OVER of_all AS a_delivered,
        sum(not_delivered) OVER of_all AS a_not_delivered
    FROM watched
    WHERE step < 64
    WINDOW of_operator AS (PARTITION BY country, "operator", step), of_all AS (PARTITION BY step)
)
SELECT
    country,
    "operator",
    three_hours,
    step,
    usms_drawn(
        messages, delivered,
        usms_drawn(o_messages, o_delivered, (a_delivered + 0.02) / (a_messages + 0.3))
    ) AS delivered,
    usms_drawn(
        messages, not_delivered,
        usms_drawn(o_messages, o_not_delivered, (a_not_delivered + 0.02) / (a_messages + 0.3))
    ) AS not_delivered,
    o_messages + least(3, a_messages + 0.3) AS messages
FROM levels;

-- Grain: one row, of such a history. What is learnt from at all, and the usual delivery rate.
CREATE OR REPLACE MACRO usms_usual(history) AS TABLE
SELECT
    sum(messages) FILTER (is_delivered IS NOT NULL) AS outcomes,
    sum(messages * usms_weight(day)) FILTER (is_delivered)
    / sum(messages * usms_weight(day)) FILTER (is_delivered IS NOT NULL) AS rate
FROM query_table(history);

-- What one message more or less would do to a rate that is nearly `rate`: its mean, and its variance.
CREATE OR REPLACE MACRO usms_effect(rate, delivered, not_delivered) AS
(1 - rate) * delivered - rate * not_delivered;

CREATE OR REPLACE MACRO usms_spread(rate, delivered, not_delivered) AS
(1 - rate) ** 2 * delivered
+ rate ** 2 * not_delivered
- usms_effect(rate, delivered, not_delivered) ** 2;

-- And its third central moment, by which a few open messages err to one side.
CREATE OR REPLACE MACRO usms_lean(rate, delivered, not_delivered) AS
delivered * (1 - rate - usms_effect(rate, delivered, not_delivered)) ** 3
- not_delivered * (rate + usms_effect(rate, delivered, not_delivered)) ** 3
- (1 - delivered - not_delivered) * usms_effect(rate, delivered, not_delivered) ** 3;

-- Grain: operator, three hours and step, of usms_hazards: the chances of a message that is open at
-- the step's beginning (and at its end: …_next), and the variance of how well their mean effect on
-- the rate is known (Greenwood's, of a chain).
CREATE OR REPLACE MACRO usms_chances(hazards, usual) AS TABLE
WITH chained AS (
    SELECT
        *,
        coalesce(sum(ln(1 - delivered - not_delivered)) OVER earlier, 0) AS log_open
    FROM query_table(hazards)
    WINDOW earlier AS (
        PARTITION BY country, "operator", three_hours ORDER BY step
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
chances AS (
    SELECT
        * EXCLUDE (delivered, not_delivered),
        1 - delivered - not_delivered AS stays,
        usms_spread(u.rate, delivered, not_delivered) AS spread,
        usms_effect(u.rate, delivered, not_delivered) AS effect,
        sum(exp(log_open) * delivered) OVER onwards / exp(log_open) AS delivered,
        sum(exp(log_open) * not_delivered) OVER onwards / exp(log_open) AS not_delivered
    FROM chained, query_table(usual) AS u
    WINDOW onwards AS (PARTITION BY country, "operator", three_hours ORDER BY step DESC)
),
following AS (
    SELECT
        *,
        coalesce(lead(delivered) OVER by_step, 0) AS delivered_next,
        coalesce(lead(not_delivered) OVER by_step, 0) AS not_delivered_next
    FROM chances
    WINDOW by_step AS (PARTITION BY country, "operator", three_hours ORDER BY step)
)
SELECT
    country,
    "operator",
    three_hours,
    step,
    delivered,
    not_delivered,
    delivered_next,
    not_delivered_next,
    sum(
        exp(2 * log_open) / messages * (
            spread + effect ** 2
            + stays * usms_effect(rate, delivered_next, not_delivered_next) ** 2
            - usms_effect(rate, delivered, not_delivered) ** 2
        )
    ) OVER onwards / exp(2 * log_open) AS vagueness
FROM following
WINDOW onwards AS (PARTITION BY country, "operator", three_hours ORDER BY step DESC);

-- Grain: one row. How much alike the messages of one day are in their luck: of an operator, and
-- beyond that of all operators (0: not at all; 1: all the same). By the method of moments from days
-- of which nothing is open, at five ages.
CREATE OR REPLACE MACRO usms_alike(history, chances, usual) AS TABLE
WITH settled AS (
    SELECT day
    FROM query_table(history)
    GROUP BY day
    HAVING count(*) FILTER (is_delivered IS NULL AND step < 64) = 0
),
open_then AS (
    SELECT
        country,
        "operator",
        day,
        three_hours,
        a.step,
        sum(messages) AS messages,
        coalesce(sum(messages) FILTER (is_delivered), 0) AS delivered,
        coalesce(sum(messages) FILTER (NOT is_delivered), 0) AS not_delivered
    FROM query_table(history) AS h
    JOIN (SELECT unnest([1, 12, 18, 24, 32])::TINYINT AS step) AS a ON h.step >= a.step
    WHERE day IN (FROM settled)
    GROUP BY ALL
),
of_operators AS (
    SELECT
        country,
        "operator",
        day,
        step,
        sum(o.messages) AS messages,
        sum(
            usms_effect(u.rate, o.delivered, o.not_delivered)
            - o.messages * usms_effect(u.rate, c.delivered, c.not_delivered)
        ) AS surprise,
        sum(o.messages * usms_spread(u.rate, c.delivered, c.not_delivered)) AS spread
    FROM open_then AS o
    JOIN query_table(chances) AS c USING (country, "operator", three_hours, step),
        query_table(usual) AS u
    GROUP BY country, "operator", day, step
),
operators AS (
    SELECT
        greatest(0, coalesce(
            sum(surprise ** 2 - spread) / nullif(sum(spread * (messages - 1)), 0), 0
        )) AS alike
    FROM of_operators
),
of_days AS (
    SELECT
        day,
        step,
        any_value(o.alike) AS alike,
        sum(messages) AS messages,
        sum(surprise) AS surprise,
        sum(spread) AS spread,
        sum(spread * (1 + (messages - 1) * o.alike)) AS spread_alike
    FROM of_operators, operators AS o
    GROUP BY day, step
)
SELECT
    o.alike AS of_operator,
    greatest(0, coalesce(
        sum(surprise ** 2 - spread_alike) / nullif(sum(spread * (messages - 1)), 0), 0
    )) AS of_day
FROM operators AS o LEFT JOIN of_days ON true
GROUP BY o.alike;

-- `source` names a relation with the columns of receipts, and more if need be. Grain: one value of
-- the column named, exactly so; the value is text, in `cohort`.
CREATE OR REPLACE MACRO usms_nowcast_by(source, column_name, history_days) AS TABLE
WITH everybody AS NOT MATERIALIZED (FROM query_table(source)),
history AS MATERIALIZED (FROM usms_history(everybody, history_days)),
usual AS MATERIALIZED (FROM usms_usual(history)),
hazards AS (FROM usms_hazards(history)),
chances AS MATERIALIZED (FROM usms_chances(hazards, usual)),
alike AS MATERIALIZED (FROM usms_alike(history, chances, usual)),
known AS (
    -- Grain: cohort, and of what is awaited operator, three hours and age.
    SELECT
        COLUMNS(lambda c: c = column_name)::VARCHAR AS cohort,
        NOT r.is_final AND NOT r.is_closed AS is_awaited,
        CASE WHEN is_awaited THEN coalesce(r.country, '') END AS country,
        CASE WHEN is_awaited THEN coalesce(r."operator", '') END AS "operator",
        CASE WHEN is_awaited THEN usms_hour(r.sent_at) % 24 // 3 END AS three_hours,
        CASE
            WHEN is_awaited THEN
                round(greatest(0, usms_steps(epoch(usms_open_until(r) - r.sent_at))), 1)
        END AS age,
        count(*) AS messages,
        count(*) FILTER (r.is_final) AS outcomes,
        count(*) FILTER (r.status = 'delivered') AS delivered
    FROM everybody AS r
    WHERE r.is_announced
    GROUP BY ALL
),
hopes AS (
    SELECT
        k.cohort,
        k.country,
        k."operator",
        k.messages,
        (1 - (k.age % 1)) * c.delivered + (k.age % 1) * c.delivered_next AS delivered,
        (1 - (k.age % 1)) * c.not_delivered + (k.age % 1) * c.not_delivered_next AS not_delivered,
        c.vagueness
    FROM known AS k
    JOIN chances AS c
        ON c.country = k.country AND c."operator" = k."operator" AND c.three_hours = k.three_hours
        AND c.step = least(63, floor(k.age))
    WHERE k.is_awaited
),
cohorts AS (
    SELECT
        k.cohort,
        sum(k.messages) AS messages,
        coalesce(sum(k.messages) FILTER (k.is_awaited), 0) AS awaited,
        sum(k.outcomes) AS outcomes,
        sum(k.delivered) AS delivered
    FROM known AS k
    GROUP BY k.cohort
),
expected AS (
    SELECT
        c.*,
        c.outcomes + coalesce(h.delivered + h.not_delivered, 0) AS in_the_end,
        (c.delivered + coalesce(h.delivered, 0)) / nullif(in_the_end, 0) AS rate
    FROM cohorts AS c
    LEFT JOIN (
        SELECT
            cohort,
            sum(messages * delivered) AS delivered,
            sum(messages * not_delivered) AS not_delivered
        FROM hopes
        GROUP BY cohort
    ) AS h ON h.cohort IS NOT DISTINCT FROM c.cohort
),
of_operators AS (
    SELECT
        e.cohort,
        h.country,
        h."operator",
        sum(h.messages) AS messages,
        sum(h.messages * usms_spread(e.rate, h.delivered, h.not_delivered)) AS spread,
        sum(h.messages * usms_lean(e.rate, h.delivered, h.not_delivered)) AS lean,
        sum(h.messages * sqrt(h.vagueness)) AS vagueness
    FROM hopes AS h
    JOIN expected AS e ON e.cohort IS NOT DISTINCT FROM h.cohort
    GROUP BY e.cohort, h.country, h."operator"
),
variances AS (
    SELECT
        cohort,
        sum(spread * (1 + (messages - 1) * a.of_operator))
        + sum(spread) * (sum(messages) - 1) * any_value(a.of_day)
        + sum(vagueness ** 2) AS variance,
        sum(lean) AS lean
    FROM of_operators, alike AS a
    GROUP BY cohort
),
reaches AS (
    SELECT
        e.*,
        u.outcomes >= 30 OR e.awaited = 0 AS is_known,
        coalesce(1.959964 * sqrt(v.variance) / e.in_the_end, 0) AS reach,
        -- Cornish and Fisher's (z² - 1) / 6 of the skewness
        coalesce(0.473577 * v.lean / nullif(v.variance, 0) / e.in_the_end, 0) AS shift
    FROM expected AS e
    LEFT JOIN variances AS v ON v.cohort IS NOT DISTINCT FROM e.cohort, usual AS u
)
SELECT
    cohort,
    messages::BIGINT AS messages,
    awaited::BIGINT AS awaited,
    delivered / nullif(outcomes, 0) AS delivery_rate,
    CASE WHEN is_known THEN outcomes / nullif(in_the_end, 0) END AS known_share,
    CASE WHEN is_known THEN rate END AS expected_rate,
    CASE
        WHEN is_known THEN greatest(rate - reach + least(0, shift), delivered / nullif(outcomes + awaited, 0))
    END AS expected_rate_low,
    CASE
        WHEN is_known
            THEN least(rate + reach + greatest(0, shift), (delivered + awaited) / nullif(outcomes + awaited, 0))
    END AS expected_rate_high
FROM reaches;

CREATE OR REPLACE MACRO delivery_nowcast_by(column_name, history_days := 28) AS TABLE
WITH named AS (FROM usms_named())
FROM usms_nowcast_by(named, column_name, history_days)
ORDER BY messages DESC, cohort;

COMMENT ON MACRO TABLE delivery_nowcast_by IS
'what the delivery rate will be once nothing is awaited, by any column, named exactly';

-- Grain: hour of sending, in UTC, whatever the session's TimeZone is.
CREATE OR REPLACE VIEW delivery_nowcast_hourly AS
WITH by_hour AS (SELECT *, usms_hour(sent_at) AS usms_hour FROM receipts)
SELECT make_timestamptz(3600000000 * cohort::BIGINT) AS sent_hour, * EXCLUDE (cohort)
FROM usms_nowcast_by(by_hour, 'usms_hour', 28)
ORDER BY sent_hour;

COMMENT ON VIEW delivery_nowcast_hourly IS
'what the delivery rate will be once nothing is awaited, by hour of sending (UTC)';

-- Grain: sent_date, the local day of sending.
CREATE OR REPLACE VIEW delivery_nowcast_daily AS
SELECT cohort::DATE AS sent_date, * EXCLUDE (cohort)
FROM delivery_nowcast_by('sent_date')
ORDER BY sent_date;

COMMENT ON VIEW delivery_nowcast_daily IS
'what the delivery rate will be once nothing is awaited, by local day of sending';

