-- delivery_nowcast…: what a young group's delivery rate will be in the end; delivery_nowcast_record:
-- how that turned out, of the latest days; maturity(): how complete a group usually is at an age.
--
--   FROM delivery_nowcast_daily ORDER BY sent_date DESC;
--   FROM delivery_nowcast_by('country');
--   FROM delivery_nowcast_record;
--
-- A chain ladder with two final statuses (delivered or not). Age is cut into steps. Of all messages
-- that were still open at the beginning of a step, and watched to its end, a share is told to be
-- delivered in it and a share not to be: the step's hazards. Chained from a message's present age
-- to the cutoff they are its chances. An open message takes part up to the last question that found
-- nothing, so nothing waits for days to settle. A week counts half as much as the week after it.
--
-- Hazards are those of the operator and of three hours of the day of sending, drawn towards the
-- operator's whole day as if 5 of its messages were added, and that towards the mean of operators:
-- a small or new operator borrows from the others. That is no mean of messages: of those that are
-- open late, most may be of an operator that never reports.
--
-- The interval (95 %) has three parts: chance in each open message; days that differ by more than
-- chance (method of moments: an operator's days, and the days of all); and how well the hazards are
-- known. It reaches further to the side to which few messages can err, and never beyond what is
-- possible: a message whose chance of a final status is below 1 in 40 counts there in part. No
-- figures (NULL) with fewer than 30 final statuses to learn from.
--
-- `moment` is when a forecast is made, in hours since 1970: now, or in the past.

-- An hour, without a time zone, so that it is the same for every reader.
CREATE OR REPLACE MACRO usms_hour(t) AS epoch_us(t) // 3600000000;

CREATE OR REPLACE MACRO usms_seconds(since, until) AS (epoch_us(until) - epoch_us(since)) / 1e6;

-- The last question that found nothing before the one with the final status; else the sending.
CREATE OR REPLACE MACRO usms_open_until(r) AS CASE
    WHEN NOT r.is_final THEN coalesce(r.last_asked_at, r.sent_at)
    WHEN r.last_open_at < r.final_at THEN r.last_open_at
    WHEN r.first_asked_at < r.final_at THEN r.first_asked_at
    ELSE r.sent_at
END;

-- Seconds after sending of the latest question by t that found nothing; 0 where there was none.
-- Where it is not remembered, for later ones found nothing too, it is the schedule's.
CREATE OR REPLACE MACRO usms_asked_by(r, t) AS greatest(0, CASE
    WHEN coalesce(r.first_asked_at > t, true) THEN 0
    WHEN usms_open_until(r) <= t THEN usms_seconds(r.sent_at, usms_open_until(r))
    ELSE greatest(
        usms_seconds(r.sent_at, r.first_asked_at),
        list_max(list_filter(usms_polls(), lambda p: p <= usms_seconds(r.sent_at, t)))
    )
END);

-- Seconds after sending from which on the service says the final status, as well as we can tell:
-- when it dates it, but not before the last question that found nothing. Of a message without a
-- final status, the seconds that it was watched; of a closed one without end.
CREATE OR REPLACE MACRO usms_exit_after(r) AS CASE
    WHEN r.is_closed AND NOT r.is_final THEN 'infinity'::DOUBLE
    ELSE greatest(
        0,
        usms_seconds(r.sent_at, usms_open_until(r)),
        CASE
            WHEN r.is_final AND r.received_at <= r.final_at
                THEN usms_seconds(r.sent_at, r.received_at)
        END
    )
END;

-- An age in seconds, in steps: of 5 minutes up to an hour, of half an hour up to four hours, and 34
-- from there to the cutoff (of two hours where that is 72 hours); 52 is the cutoff.
CREATE OR REPLACE MACRO usms_steps(seconds) AS CASE
    WHEN seconds < 3600 THEN seconds / 300
    WHEN seconds < 14400 THEN 10 + seconds / 1800
    ELSE least(52, 18 + (seconds - 14400) / usms_late_step())
END;

CREATE OR REPLACE MACRO usms_late_step() AS greatest(1800, (epoch(usms_cutoff()) - 14400) / 34);

CREATE OR REPLACE MACRO usms_age(step) AS CASE
    WHEN step < 12 THEN 300 * step
    WHEN step < 18 THEN 1800 * (step - 10)
    ELSE 14400 + (step - 18) * usms_late_step()
END;

-- The step in which a message left: with a final status in the step that was begun then; open after
-- that number of whole ones; closed in step 52.
CREATE OR REPLACE MACRO usms_step(seconds, is_final) AS CASE
    WHEN is_final THEN greatest(0, ceil(usms_steps(seconds)) - 1)
    ELSE floor(usms_steps(seconds))
END::TINYINT;

-- A carrier by its name and country, also where the name has the country already (usms_named); the
-- country alone where no carrier is known.
CREATE OR REPLACE MACRO usms_carrier(country, name) AS CASE
    WHEN name IS NULL THEN coalesce(country, '')
    WHEN country IS NULL OR ends_with(name, ' (' || country || ')') THEN name
    ELSE name || ' (' || country || ')'
END;

-- Grain: moment (now alone); carrier, day (0: today, -1: yesterday) and three hours of sending; step
-- in which messages left, and how (NULL: open, or closed).
CREATE OR REPLACE MACRO usms_history(history_days) AS TABLE
WITH newest AS (
    SELECT usms_hour(max(last_asked_at)) AS moment
    FROM receipts
    WHERE is_announced AND status <> 'invalid'
),
everybody AS (
    SELECT
        n.moment,
        r.country,
        r."operator",
        usms_hour(r.sent_at) AS hour,
        usms_exit_after(r) AS left_after,
        r.is_final,
        r.status = 'delivered' AS is_delivered
    FROM receipts AS r, newest AS n
    WHERE
        r.is_announced
        AND r.status <> 'invalid'
        AND (
            r.sent_at >= make_timestamptz(86400000000 * (n.moment // 24 - history_days + 1))
            OR NOT (r.is_final OR r.is_closed)
        )
),
counted AS (
    SELECT
        moment,
        country,
        "operator",
        hour // 24 - moment // 24 AS day,
        hour % 24 // 3 AS three_hours,
        usms_step(left_after, is_final) AS step,
        CASE WHEN is_final THEN is_delivered END AS is_delivered,
        count(*) AS messages
    FROM everybody
    GROUP BY ALL
)
SELECT * EXCLUDE (country, "operator"), usms_carrier(country, "operator") AS carrier FROM counted;

-- How much a message of n days ago counts.
CREATE OR REPLACE MACRO usms_weight(day) AS 0.5 ** (-day / 7);

-- A share k of n, drawn towards another as if `more` messages were known.
CREATE OR REPLACE MACRO usms_drawn(k, n, towards, more) AS (k + more * towards) / (n + more);

-- `history` names such a relation. Grain: moment, operator, three hours and step, also those in
-- which nothing happened: the hazards, and how many messages' worth is known of them (of what is
-- borrowed from others, three).
CREATE OR REPLACE MACRO usms_hazards(history) AS TABLE
WITH leaving AS (
    SELECT
        moment,
        carrier,
        three_hours,
        step,
        coalesce(sum(messages * usms_weight(day)) FILTER (is_delivered), 0) AS delivered,
        coalesce(sum(messages * usms_weight(day)) FILTER (NOT is_delivered), 0) AS not_delivered,
        coalesce(sum(messages * usms_weight(day)) FILTER (is_delivered IS NULL), 0) AS open
    FROM query_table(history)
    GROUP BY ALL
),
grid AS (
    SELECT * FROM (SELECT DISTINCT moment, carrier, three_hours FROM leaving),
        (SELECT unnest(range(52))::TINYINT AS step)
),
watched AS (
    -- `messages`: who was watched through the step, or had a final status in it
    SELECT
        moment,
        carrier,
        three_hours,
        step,
        coalesce(delivered, 0) AS delivered,
        coalesce(not_delivered, 0) AS not_delivered,
        coalesce(sum(delivered + not_delivered + open) OVER later - coalesce(open, 0), 0) AS messages
    FROM (FROM grid FULL JOIN leaving USING (moment, carrier, three_hours, step))
    WINDOW later AS (PARTITION BY moment, carrier, three_hours ORDER BY step DESC)
),
levels AS (
    SELECT
        *,
        sum(messages) OVER of_operator AS o_messages,
        sum(delivered) OVER of_operator AS o_delivered,
        sum(not_delivered) OVER of_operator AS o_not_delivered,
        sum(messages) OVER of_all AS a_messages
    FROM watched
    WHERE step < 52
    WINDOW
        of_operator AS (PARTITION BY moment, carrier, step),
        of_all AS (PARTITION BY moment, step)
),
means AS (
    -- each operator weighs as much as is known of it, at most 1
    SELECT
        *,
        sum(messages / (o_messages + 5)) OVER of_all + 0.03 AS operators,
        (sum(delivered / (o_messages + 5)) OVER of_all + 0.002) / operators AS a_delivered,
        (sum(not_delivered / (o_messages + 5)) OVER of_all + 0.002) / operators AS a_not_delivered
    FROM levels
    WINDOW of_all AS (PARTITION BY moment, step)
)
SELECT
    moment,
    carrier,
    three_hours,
    step,
    usms_drawn(
        delivered, messages, usms_drawn(o_delivered, o_messages, a_delivered, 5), 5
    ) AS delivered,
    usms_drawn(
        not_delivered, messages, usms_drawn(o_not_delivered, o_messages, a_not_delivered, 5), 5
    ) AS not_delivered,
    o_messages + least(3, a_messages + 0.3) AS messages
FROM means;

-- Grain: moment. What is learnt from at all, and the usual delivery rate.
CREATE OR REPLACE MACRO usms_usual_rate(history) AS TABLE
SELECT
    moment,
    sum(messages) AS messages,
    coalesce(sum(messages) FILTER (is_delivered IS NOT NULL), 0) AS finals,
    sum(messages * usms_weight(day)) FILTER (is_delivered)
    / sum(messages * usms_weight(day)) FILTER (is_delivered IS NOT NULL) AS rate
FROM query_table(history)
GROUP BY moment;

-- What one message more or less would do to a rate that is nearly `rate`: its mean; its variance;
-- and its third central moment, by which a few open messages err to one side.
CREATE OR REPLACE MACRO usms_effect(rate, delivered, not_delivered) AS
(1 - rate) * delivered - rate * not_delivered;

CREATE OR REPLACE MACRO usms_spread(rate, delivered, not_delivered) AS
(1 - rate) ** 2 * delivered
+ rate ** 2 * not_delivered
- usms_effect(rate, delivered, not_delivered) ** 2;

CREATE OR REPLACE MACRO usms_lean(rate, delivered, not_delivered) AS
delivered * (1 - rate - usms_effect(rate, delivered, not_delivered)) ** 3
- not_delivered * (rate + usms_effect(rate, delivered, not_delivered)) ** 3
- (1 - delivered - not_delivered) * usms_effect(rate, delivered, not_delivered) ** 3;

-- Grain: as usms_hazards. The chances of a message that is open at the step's beginning, the share
-- of all messages that is, and the variance of how well the chances' mean effect on the rate is
-- known (Greenwood's, of a chain).
CREATE OR REPLACE MACRO usms_chances(hazards, usual) AS TABLE
WITH chained AS (
    SELECT
        h.*,
        u.rate,
        exp(coalesce(sum(ln(1 - h.delivered - h.not_delivered)) OVER earlier, 0)) AS open_share
    FROM query_table(hazards) AS h
    JOIN query_table(usual) AS u USING (moment)
    WINDOW earlier AS (
        PARTITION BY h.moment, h.carrier, h.three_hours ORDER BY h.step
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
),
chances AS (
    SELECT
        * EXCLUDE (delivered, not_delivered),
        1 - delivered - not_delivered AS stays,
        usms_spread(rate, delivered, not_delivered)
        + usms_effect(rate, delivered, not_delivered) ** 2 AS squared,
        sum(open_share * delivered) OVER onwards / open_share AS delivered,
        sum(open_share * not_delivered) OVER onwards / open_share AS not_delivered
    FROM chained
    WINDOW onwards AS (
        PARTITION BY moment, carrier, three_hours ORDER BY step DESC
    )
),
effects AS (
    SELECT *, usms_effect(rate, delivered, not_delivered) AS effect
    FROM chances
),
following AS (
    SELECT *, coalesce(lead(effect) OVER by_step, 0) AS effect_next
    FROM effects
    WINDOW by_step AS (PARTITION BY moment, carrier, three_hours ORDER BY step)
)
SELECT
    moment,
    carrier,
    three_hours,
    step,
    open_share,
    delivered,
    not_delivered,
    sum(open_share ** 2 / messages * (squared + stays * effect_next ** 2 - effect ** 2)) OVER onwards
    / open_share ** 2 AS vagueness
FROM following
WINDOW onwards AS (PARTITION BY moment, carrier, three_hours ORDER BY step DESC);

-- Grain: moment. How much alike the messages of one day are in their luck: of an operator, and
-- beyond that of all operators (0: not at all; 1: all the same). By the method of moments from days
-- of which nothing is open, at five ages.
CREATE OR REPLACE MACRO usms_alike(history, chances, usual) AS TABLE
WITH settled AS (
    SELECT moment, day
    FROM query_table(history)
    GROUP BY moment, day
    HAVING count(*) FILTER (is_delivered IS NULL AND step < 52) = 0
),
usually AS (
    SELECT
        c.moment,
        c.carrier,
        c.three_hours,
        c.step,
        u.rate,
        usms_effect(u.rate, c.delivered, c.not_delivered) AS effect,
        usms_spread(u.rate, c.delivered, c.not_delivered) AS spread
    FROM query_table(chances) AS c
    JOIN query_table(usual) AS u USING (moment)
    WHERE c.step IN (1, 12, 18, 24, 32)
),
of_operators AS (
    SELECT
        moment,
        day,
        u.step,
        sum(h.messages) AS messages,
        sum(h.messages * (
            usms_effect(
                u.rate,
                coalesce(h.is_delivered, false)::INTEGER,
                coalesce(NOT h.is_delivered, false)::INTEGER
            ) - u.effect
        )) AS surprise,
        sum(h.messages * u.spread) AS spread
    FROM query_table(history) AS h
    SEMI JOIN settled USING (moment, day)
    JOIN usually AS u USING (moment, carrier, three_hours)
    WHERE h.step >= u.step
    GROUP BY moment, carrier, day, u.step
),
operators AS (
    SELECT
        moment,
        greatest(0, coalesce(
            sum(surprise ** 2 - spread) / nullif(sum(spread * (messages - 1)), 0), 0
        )) AS alike
    FROM of_operators
    GROUP BY moment
),
of_days AS (
    SELECT
        moment,
        any_value(o.alike) AS alike,
        sum(messages) AS messages,
        sum(surprise) AS surprise,
        sum(spread) AS spread,
        sum(spread * (1 + (messages - 1) * o.alike)) AS spread_alike
    FROM of_operators
    JOIN operators AS o USING (moment)
    GROUP BY moment, day, step
)
SELECT
    moment,
    any_value(alike) AS of_operator,
    greatest(0, coalesce(
        sum(surprise ** 2 - spread_alike) / nullif(sum(spread * (messages - 1)), 0), 0
    )) AS of_day
FROM of_days
GROUP BY moment;

-- `known` names a relation (`moment, cohort, carrier, three_hours, step, is_awaited`, and
-- `messages, finals, delivered`); `history` as above. Grain: cohort.
CREATE OR REPLACE MACRO usms_nowcast(known, history) AS TABLE
WITH usual AS MATERIALIZED (FROM usms_usual_rate(history)),
hazards AS (FROM usms_hazards(history)),
chances AS MATERIALIZED (FROM usms_chances(hazards, usual)),
alike AS (FROM usms_alike(history, chances, usual)),
hopes AS (
    SELECT k.cohort, k.moment, k.carrier, k.messages,
        c.delivered, c.not_delivered, c.vagueness
    FROM query_table(known) AS k
    JOIN chances AS c USING (moment, carrier, three_hours, step)
    WHERE k.is_awaited
),
cohorts AS (
    SELECT
        cohort,
        any_value(moment) AS moment,
        sum(messages) AS messages,
        coalesce(sum(messages) FILTER (is_awaited), 0) AS awaited,
        sum(finals) AS finals,
        sum(delivered) AS delivered
    FROM query_table(known)
    GROUP BY cohort
),
to_come AS (
    SELECT
        cohort,
        sum(messages * delivered) AS delivered,
        sum(messages * not_delivered) AS not_delivered,
        sum(messages * least(1, 40 * delivered)) AS may_be_delivered,
        sum(messages * least(1, 40 * not_delivered)) AS may_not_be
    FROM hopes
    GROUP BY cohort
),
expected AS (
    SELECT
        c.*,
        c.finals + coalesce(t.delivered + t.not_delivered, 0) AS in_the_end,
        (c.delivered + coalesce(t.delivered, 0)) / nullif(in_the_end, 0) AS rate,
        c.delivered / nullif(c.finals + coalesce(t.may_not_be, 0), 0) AS least_rate,
        (c.delivered + coalesce(t.may_be_delivered, 0))
        / nullif(c.finals + coalesce(t.may_be_delivered, 0), 0) AS most_rate
    FROM cohorts AS c
    LEFT JOIN to_come AS t ON t.cohort IS NOT DISTINCT FROM c.cohort
),
of_operators AS (
    SELECT
        e.cohort,
        e.moment,
        sum(h.messages) AS messages,
        sum(h.messages * usms_spread(e.rate, h.delivered, h.not_delivered)) AS spread,
        sum(h.messages * usms_lean(e.rate, h.delivered, h.not_delivered)) AS lean,
        sum(h.messages * sqrt(h.vagueness)) AS vagueness
    FROM hopes AS h
    JOIN expected AS e ON e.cohort IS NOT DISTINCT FROM h.cohort
    GROUP BY e.cohort, e.moment, h.carrier
),
variances AS (
    SELECT
        o.cohort,
        sum(o.spread * (1 + (o.messages - 1) * coalesce(a.of_operator, 0)))
        + sum(o.spread) * (sum(o.messages) - 1) * coalesce(any_value(a.of_day), 0)
        + sum(o.vagueness ** 2) AS variance,
        sum(o.lean) AS lean
    FROM of_operators AS o
    LEFT JOIN alike AS a USING (moment)
    GROUP BY o.cohort
),
reaches AS (
    SELECT
        e.*,
        coalesce(u.finals >= 30, false) OR e.awaited = 0 AS is_known,
        -- Student's t for 25 degrees of freedom: days that differ are known of four weeks at most
        coalesce(2.06 * sqrt(v.variance) / e.in_the_end, 0) AS reach,
        -- Cornish and Fisher's (z² - 1) / 6 of the skewness; where so few are to come that it would
        -- be more than half of the reach, their series does not hold
        coalesce(0.473577 * v.lean / nullif(v.variance, 0) / e.in_the_end, 0) AS leaning,
        greatest(-reach / 2, least(reach / 2, leaning)) AS shift
    FROM expected AS e
    LEFT JOIN variances AS v ON v.cohort IS NOT DISTINCT FROM e.cohort
    LEFT JOIN usual AS u ON u.moment = e.moment
)
SELECT
    cohort,
    messages::BIGINT AS messages,
    awaited::BIGINT AS awaited,
    delivered / nullif(finals, 0) AS delivery_rate,
    CASE WHEN is_known THEN finals / nullif(in_the_end, 0) END AS known_share,
    CASE WHEN is_known THEN rate END AS expected_rate,
    CASE
        WHEN is_known THEN greatest(rate - reach + least(0, shift), least_rate)
    END AS expected_rate_low,
    CASE
        WHEN is_known THEN least(rate + reach + greatest(0, shift), most_rate)
    END AS expected_rate_high
FROM reaches;

-- `source` names a relation with the columns of receipts, and more if need be. Grain: as it: with
-- what a forecast asks of a message. All but messages that are waited for are alike.
CREATE OR REPLACE MACRO usms_to_forecast(source) AS TABLE
SELECT
    r.*,
    NOT r.is_final AND NOT r.is_closed AS usms_is_awaited,
    CASE WHEN usms_is_awaited THEN usms_carrier(r.country, r."operator") END AS usms_carrier,
    CASE WHEN usms_is_awaited THEN usms_hour(r.sent_at) % 24 // 3 END AS usms_three_hours,
    CASE
        WHEN usms_is_awaited THEN least(51, usms_step(usms_exit_after(r), false))
    END AS usms_step
FROM query_table(source) AS r
WHERE r.is_announced;

-- `source` as above. Grain: one value of the column named, exactly so; the value is text, in
-- `cohort`.
CREATE OR REPLACE MACRO usms_nowcast_by(source, column_name, history_days) AS TABLE
WITH history AS MATERIALIZED (FROM usms_history(history_days)),
known AS MATERIALIZED (
    -- Grain: cohort, and of what is awaited operator, three hours and step.
    SELECT
        COLUMNS([column_name])::VARCHAR AS cohort,
        (SELECT any_value(moment) FROM history) AS moment,
        usms_is_awaited AS is_awaited,
        usms_carrier AS carrier,
        usms_three_hours AS three_hours,
        usms_step AS step,
        count(*) AS messages,
        count(*) FILTER (is_final) AS finals,
        count(*) FILTER (status = 'delivered') AS delivered
    FROM usms_to_forecast(source)
    GROUP BY ALL
)
FROM usms_nowcast(known, history);

CREATE OR REPLACE MACRO delivery_nowcast_by(column_name, history_days := 28) AS TABLE
WITH named AS (FROM usms_named())
FROM usms_nowcast_by(named, usms_column(column_name), history_days)
ORDER BY messages DESC, cohort;

COMMENT ON MACRO TABLE delivery_nowcast_by IS
'expected final delivery rate, by any column';

-- Grain: hour of sending, in UTC for every TimeZone of the session.
CREATE OR REPLACE VIEW delivery_nowcast_hourly AS
WITH by_hour AS (SELECT *, usms_hour(sent_at) AS usms_hour FROM receipts)
SELECT make_timestamptz(3600000000 * cohort::BIGINT) AS sent_hour, * EXCLUDE (cohort)
FROM usms_nowcast_by(by_hour, 'usms_hour', 28)
ORDER BY sent_hour;

COMMENT ON VIEW delivery_nowcast_hourly IS
'expected final delivery rate, by hour of sending (UTC)';

-- Grain: sent_date, the local day of sending.
CREATE OR REPLACE VIEW delivery_nowcast_daily AS
SELECT cohort::DATE AS sent_date, * EXCLUDE (cohort)
FROM delivery_nowcast_by('sent_date')
ORDER BY sent_date;

COMMENT ON VIEW delivery_nowcast_daily IS
'expected final delivery rate, by local day of sending';

-- Grain: an age. Shares are of the messages open at that age, but for known_share: of the final
-- statuses that come in the end, those that the service says by then. Of all operators and hours;
-- none where there are no final statuses.
CREATE OR REPLACE MACRO maturity(history_days := 28) AS TABLE
WITH history AS MATERIALIZED (
    SELECT * REPLACE ('' AS carrier, 0 AS three_hours) FROM usms_history(history_days)
),
usual AS MATERIALIZED (FROM usms_usual_rate(history)),
hazards AS (FROM usms_hazards(history)),
chances AS MATERIALIZED (FROM usms_chances(hazards, usual)),
at_first AS (SELECT delivered + not_delivered AS finals FROM chances WHERE step = 0)
SELECT
    usms_age(c.step)::INTEGER AS age_seconds,
    u.messages::BIGINT AS messages,
    1 - c.open_share * (c.delivered + c.not_delivered) / f.finals AS known_share,
    c.open_share,
    c.delivered AS delivered_if_open,
    c.not_delivered AS not_delivered_if_open
FROM chances AS c, usual AS u, at_first AS f
WHERE c.step IN (0, 1, 2, 4, 8, 12, 14, 18, 20, 22, 28, 34, 40) AND u.finals > 0
ORDER BY age_seconds;

COMMENT ON MACRO TABLE maturity IS
'how complete a group of messages usually is at each age, from your own messages';

-- -- how the forecasts turned out ---------------------------------------------------------------

-- `moments` names a relation (moment). Grain: as usms_history, as it was known at each moment.
CREATE OR REPLACE MACRO usms_past_histories(moments, history_days) AS TABLE
WITH everybody AS NOT MATERIALIZED (
    SELECT
        r.country,
        r."operator",
        r.status,
        r.sent_at,
        r.received_at,
        r.first_asked_at,
        r.last_open_at,
        r.last_asked_at,
        r.is_final,
        r.is_closed,
        r.final_at,
        usms_hour(r.sent_at) AS hour,
        usms_hour(
            CASE WHEN r.is_final THEN r.final_at WHEN r.is_closed THEN r.last_asked_at END
        ) AS known
    FROM receipts AS r
    WHERE
        r.is_announced
        AND r.status <> 'invalid'
        AND r.sent_at >= (
            SELECT make_timestamptz(3600000000 * (min(moment) - 24 * history_days))
            FROM query_table(moments)
        )
),
known AS MATERIALIZED (
    SELECT
        r.country,
        r."operator",
        r.hour // 24 AS day,
        r.hour % 24 // 3 AS three_hours,
        r.known // 24 AS known_on,
        usms_step(usms_exit_after(r), r.is_final) AS step,
        CASE WHEN r.is_final THEN r.status = 'delivered' END AS is_delivered,
        count(*) AS messages
    FROM everybody AS r
    WHERE r.known IS NOT NULL
    GROUP BY ALL
),
open_then AS (
    SELECT
        m.moment,
        r.country,
        r."operator",
        r.hour // 24 - m.moment // 24 + 1 AS day,
        r.hour % 24 // 3 AS three_hours,
        usms_asked_by(r, make_timestamptz(3600000000 * m.moment)) AS watched
    FROM everybody AS r
    JOIN query_table(moments) AS m ON r.hour < m.moment AND coalesce(r.known >= m.moment, true)
    WHERE coalesce(r.known // 24 > r.hour // 24, true)  -- open at a midnight
),
counted AS (
    SELECT
        m.moment,
        k.country,
        k."operator",
        k.day - m.moment // 24 + 1 AS day,
        k.three_hours,
        k.step,
        k.is_delivered,
        sum(k.messages) AS messages
    FROM known AS k
    JOIN query_table(moments) AS m
        ON k.known_on < m.moment // 24 AND k.day >= m.moment // 24 - history_days
    GROUP BY ALL
    UNION ALL
    SELECT
        moment,
        country,
        "operator",
        day,
        three_hours,
        least(51, usms_step(watched, false)) AS step,
        NULL AS is_delivered,
        count(*) AS messages
    FROM open_then
    GROUP BY ALL
)
SELECT * EXCLUDE (country, "operator"), usms_carrier(country, "operator") AS carrier FROM counted;

-- Grain: a day of sending (UTC), the latest 14 that are over and of which nothing is awaited: what
-- was expected of it at the midnight that ended it, and what became of it.
CREATE OR REPLACE VIEW delivery_nowcast_record AS
WITH days AS (
    SELECT
        usms_hour(sent_at) // 24 AS day,
        count(*) FILTER (is_final) AS finals,
        count(*) FILTER (status = 'delivered') AS delivered
    FROM receipts
    WHERE is_announced AND status <> 'invalid'
    GROUP BY ALL
    HAVING count(*) FILTER (NOT is_final AND NOT is_closed) = 0 AND count(*) FILTER (is_final) > 0
),
ended AS MATERIALIZED (
    SELECT *, 24 * (day + 1) AS moment
    FROM days
    WHERE day < (SELECT usms_hour(max(last_asked_at)) // 24 FROM receipts)
    ORDER BY day DESC
    LIMIT 14
),
history AS MATERIALIZED (FROM usms_past_histories(ended, 28)),
known AS MATERIALIZED (
    SELECT
        moment AS cohort,
        moment,
        is_delivered IS NULL AND step < 52 AS is_awaited,
        carrier,
        three_hours,
        step,
        messages,
        CASE WHEN is_delivered IS NULL THEN 0 ELSE messages END AS finals,
        CASE WHEN is_delivered THEN messages ELSE 0 END AS delivered
    FROM history
    WHERE day = 0
)
SELECT
    make_timestamptz(3600000000 * 24 * e.day) AS sent_from,
    make_timestamptz(3600000000 * e.moment) AS forecast_at,
    n.messages,
    n.awaited,
    n.delivery_rate AS rate_then,
    n.expected_rate,
    n.expected_rate_low,
    n.expected_rate_high,
    e.delivered / e.finals AS delivery_rate,
    e.delivered / e.finals BETWEEN n.expected_rate_low - 1e-9 AND n.expected_rate_high + 1e-9
        AS is_held
FROM usms_nowcast(known, history) AS n
JOIN ended AS e ON e.moment = n.cohort
WHERE n.expected_rate IS NOT NULL
ORDER BY sent_from;

COMMENT ON VIEW delivery_nowcast_record IS
'forecast for each of the latest 14 settled days (UTC), made as the day ended, and its final rate';
