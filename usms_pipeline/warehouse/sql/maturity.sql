-- maturity(…): how complete a group of messages usually is so long after sending, from our own
-- settled history; and delivery_nowcast…: what a young group's delivery rate will be in the end.
--
--   FROM maturity();
--   FROM delivery_nowcast_daily ORDER BY sent_date DESC;
--   FROM delivery_nowcast_by('country');
--
-- History: the announced messages of settled six-hour blocks of sending (nothing in them is
-- awaited), the latest `history_days` of them, with a session number that the service takes. Of these
-- it is known when the service began to say their outcome. Those first asked about after the cutoff
-- are among them, so that a first run over old messages has a history; should the service have
-- forgotten some by then, fewer outcomes are expected, and the rate is guessed nearer to the one so
-- far.
--
-- An awaited message was last watched w seconds after sending. What becomes of it is guessed from
-- the history's messages that were still open after w, in its own country, drawn towards those of
-- all countries as if 20 of them were its own. So a group's expected outcomes are those it has and
-- a chance for every message awaited; expected_rate is delivered / with evidence, once nothing is
-- awaited, as delivery_rate will be then.
--
-- The interval (95 %) has three parts: chance in each awaited message; blocks that differ by more
-- than chance (method of moments over the history's blocks; it touches all messages of a group
-- alike, which is rather too wide than too narrow); and how well so short a history is known.
-- Student's t for few blocks. Never outside of what is possible. No figures (NULL) with less than
-- four blocks of history, or without an outcome in it.

-- An hour, and a block of sending; without a time zone, so that they are the same for every reader.
CREATE OR REPLACE MACRO usms_hour(t) AS epoch_us(t) // 3600000000;

CREATE OR REPLACE MACRO usms_block(sent_at) AS epoch_us(sent_at) // 21600000000;

CREATE OR REPLACE MACRO usms_ages() AS [
    0, 300, 600, 1200, 2400, 3600, 7200, 14400, 28800, 43200, 86400, 129600, 172800
];

-- Seconds after sending from which on the service says the outcome, as well as we can tell: when
-- it dates it, or, where an earlier question found nothing though it is dated before that
-- question (or before the sending), when we heard of it. NULL without evidence of an outcome.
CREATE OR REPLACE MACRO usms_shown_after(r) AS CASE
    WHEN r.is_final THEN greatest(0, ceil(epoch(
        CASE
            WHEN r.received_at < r.sent_at THEN r.final_at
            WHEN r.received_at > r.first_asked_at OR r.first_asked_at = r.final_at
                THEN least(r.received_at, r.final_at)
            ELSE r.final_at
        END - r.sent_at
    )))
END;

-- Grain: six hours, country, second and outcome: so many messages of the history.
CREATE OR REPLACE MACRO usms_history(history_days) AS TABLE
WITH settled AS (
    SELECT usms_block(sent_at) AS block
    FROM receipts
    WHERE is_announced AND status <> 'invalid'
    GROUP BY ALL
    HAVING count(*) FILTER (NOT is_final AND NOT is_closed) = 0
)
SELECT
    usms_block(r.sent_at) AS block,
    r.country,
    usms_shown_after(r) AS shown_after,
    r.status = 'delivered' AS is_delivered,
    count(*) AS messages
FROM receipts AS r
WHERE
    r.is_announced
    AND r.status <> 'invalid'
    AND r.first_asked_at IS NOT NULL
    AND usms_block(r.sent_at) IN (
        SELECT block FROM settled
        WHERE block > (SELECT max(block) FROM settled) - 4 * history_days
    )
GROUP BY ALL;

-- `history` names such a relation. Grain: an age and a block; `messages` are the block's still open
-- at that age, of which in the end so many were delivered or not.
CREATE OR REPLACE MACRO usms_open_at_ages(history) AS TABLE
SELECT
    a.age,
    h.block,
    sum(h.messages) AS messages,
    coalesce(sum(h.messages) FILTER (h.shown_after IS NOT NULL AND h.is_delivered), 0) AS delivered,
    coalesce(
        sum(h.messages) FILTER (h.shown_after IS NOT NULL AND NOT h.is_delivered), 0
    ) AS not_delivered
FROM query_table(history) AS h
JOIN (SELECT unnest(usms_ages()) AS age) AS a ON coalesce(h.shown_after > a.age, true)
GROUP BY a.age, h.block;

-- Grain: an age. Shares are of the messages open at that age, but for known_share: of the
-- outcomes that came in the end, those that the service said by then.
CREATE OR REPLACE MACRO maturity(history_days := 28) AS TABLE
WITH history AS MATERIALIZED (FROM usms_history(history_days)),
ages AS (
    SELECT
        age,
        sum(messages) AS messages,
        sum(delivered) AS delivered,
        sum(not_delivered) AS not_delivered
    FROM usms_open_at_ages(history)
    GROUP BY age
),
ended AS (
    SELECT
        sum(messages) AS messages,
        sum(messages) FILTER (shown_after IS NOT NULL) AS outcomes
    FROM history
)
SELECT
    a.age AS age_seconds,
    e.messages::BIGINT AS messages,
    1 - (a.delivered + a.not_delivered) / nullif(e.outcomes, 0) AS known_share,
    a.messages / nullif(e.messages, 0) AS open_share,
    a.delivered / a.messages AS delivered_if_open,
    a.not_delivered / a.messages AS not_delivered_if_open
FROM ages AS a, ended AS e
ORDER BY age_seconds;

COMMENT ON MACRO TABLE maturity IS
'how complete a group is so long after sending, from our own settled history';

-- What one message more or less would do to a rate that is nearly `rate`: its variance.
CREATE OR REPLACE MACRO usms_spread(rate, delivered, not_delivered) AS
(1 - rate) ** 2 * delivered
+ rate ** 2 * not_delivered
- ((1 - rate) * delivered - rate * not_delivered) ** 2;

-- Student's t, two-sided 95 %, for so many degrees of freedom, within 1 % from 3 on (Abramowitz
-- and Stegun 26.7.5).
CREATE OR REPLACE MACRO usms_student(freedom) AS
1.959964
+ 2.372270 / freedom
+ 2.822499 / freedom ** 2
+ 2.555850 / freedom ** 3;

-- `members` names a relation (cohort, country, is_final, is_delivered, is_awaited, watched), one
-- row a message. Grain: cohort.
CREATE OR REPLACE MACRO usms_nowcast(members, history_days) AS TABLE
WITH history AS MATERIALIZED (FROM usms_history(history_days)),
leaving AS (
    -- By country, and all together where it is_all.
    SELECT
        grouping(country) = 1 AS is_all,
        country,
        shown_after,
        sum(messages) AS messages,
        sum(messages) FILTER (shown_after IS NOT NULL AND is_delivered) AS delivered,
        sum(messages) FILTER (shown_after IS NOT NULL AND NOT is_delivered) AS not_delivered
    FROM history
    GROUP BY GROUPING SETS ((country, shown_after), (shown_after))
),
later AS (
    -- At each moment with an outcome: who was open just before, and what became of them.
    SELECT
        is_all,
        country,
        coalesce(shown_after, 'infinity'::DOUBLE) AS shown_after,
        sum(messages) OVER so_late AS messages,
        coalesce(sum(delivered) OVER so_late, 0) AS delivered,
        coalesce(sum(not_delivered) OVER so_late, 0) AS not_delivered
    FROM leaving
    WINDOW so_late AS (
        PARTITION BY is_all, country ORDER BY coalesce(shown_after, 'infinity'::DOUBLE) DESC
    )
),
rate AS (
    SELECT
        count(DISTINCT block) AS blocks,
        sum(messages) FILTER (shown_after IS NOT NULL AND is_delivered)
        / nullif(sum(messages) FILTER (shown_after IS NOT NULL), 0) AS usual
    FROM history
),
ages AS (
    SELECT
        age,
        sum(delivered) / sum(messages) AS delivered,
        sum(not_delivered) / sum(messages) AS not_delivered
    FROM usms_open_at_ages(history)
    GROUP BY age
),
excess AS (
    -- How much blocks differ beyond chance: variance between them of a message's mean effect.
    SELECT
        o.age,
        greatest(
            0,
            sum(
                (
                    (1 - r.usual) * (o.delivered - o.messages * a.delivered)
                    - r.usual * (o.not_delivered - o.messages * a.not_delivered)
                ) ** 2
                - o.messages * usms_spread(r.usual, a.delivered, a.not_delivered)
            ) / sum(o.messages ** 2)
        ) AS between_blocks
    FROM usms_open_at_ages(history) AS o
    JOIN ages AS a ON a.age = o.age, rate AS r
    GROUP BY o.age
),
awaited AS (
    SELECT cohort, country, watched, count(*) AS messages
    FROM query_table(members)
    WHERE is_awaited
    GROUP BY cohort, country, watched
),
guessed AS (
    SELECT
        w.cohort,
        w.messages,
        coalesce(x.between_blocks, 0) AS between_blocks,
        coalesce(a.messages, 0) AS alike,
        (coalesce(a.delivered, 0) + 1) / (coalesce(a.messages, 0) + 3) AS delivered_of_all,
        (coalesce(a.not_delivered, 0) + 1) / (coalesce(a.messages, 0) + 3) AS not_delivered_of_all,
        coalesce(c.messages, 0) AS neighbours,
        coalesce(c.delivered, 0) AS neighbours_delivered,
        coalesce(c.not_delivered, 0) AS neighbours_not_delivered
    FROM awaited AS w
    ASOF LEFT JOIN (SELECT * FROM later WHERE is_all) AS a ON w.watched < a.shown_after
    ASOF LEFT JOIN (SELECT * FROM later WHERE NOT is_all) AS c
        ON c.country = w.country AND w.watched < c.shown_after
    ASOF LEFT JOIN excess AS x ON w.watched >= x.age
),
chances AS (
    SELECT
        cohort,
        messages,
        between_blocks,
        alike,
        (neighbours_delivered + 20 * delivered_of_all) / (neighbours + 20) AS delivered,
        (neighbours_not_delivered + 20 * not_delivered_of_all) / (neighbours + 20) AS not_delivered
    FROM guessed
),
hopes AS (
    SELECT
        cohort,
        sum(messages * delivered) AS delivered,
        sum(messages * not_delivered) AS not_delivered
    FROM chances
    GROUP BY cohort
),
known AS (
    SELECT
        cohort,
        count(*) AS messages,
        count(*) FILTER (is_awaited) AS awaited,
        count(*) FILTER (is_final) AS outcomes,
        count(*) FILTER (is_delivered) AS delivered
    FROM query_table(members)
    GROUP BY cohort
),
expected AS (
    SELECT
        k.*,
        k.outcomes + coalesce(h.delivered + h.not_delivered, 0) AS outcomes_in_the_end,
        (k.delivered + coalesce(h.delivered, 0))
        / nullif(k.outcomes + coalesce(h.delivered + h.not_delivered, 0), 0) AS rate
    FROM known AS k
    LEFT JOIN hopes AS h ON h.cohort IS NOT DISTINCT FROM k.cohort
),
variances AS (
    SELECT
        e.cohort,
        sum(c.messages * usms_spread(e.rate, c.delivered, c.not_delivered))
        + sum(c.messages * sqrt(c.between_blocks)) ** 2 * (1 + 1 / nullif(any_value(r.blocks), 0))
        + sum(
            c.messages
            * sqrt(usms_spread(e.rate, c.delivered, c.not_delivered) / greatest(1, c.alike))
        ) ** 2 AS variance
    FROM chances AS c
    JOIN expected AS e ON e.cohort IS NOT DISTINCT FROM c.cohort, rate AS r
    GROUP BY e.cohort
),
reaches AS (
    SELECT
        e.*,
        (r.blocks >= 4 AND r.usual IS NOT NULL) OR e.awaited = 0 AS is_known,
        CASE
            WHEN e.awaited = 0 THEN 0
            ELSE usms_student(r.blocks - 1) * sqrt(v.variance) / e.outcomes_in_the_end
        END AS reach
    FROM expected AS e
    LEFT JOIN variances AS v ON v.cohort IS NOT DISTINCT FROM e.cohort, rate AS r
)
SELECT
    cohort,
    messages,
    awaited,
    delivered / nullif(outcomes, 0) AS delivery_rate,
    CASE WHEN is_known THEN outcomes / nullif(outcomes_in_the_end, 0) END AS known_share,
    CASE WHEN is_known THEN rate END AS expected_rate,
    CASE
        WHEN is_known
            THEN greatest(rate - reach, delivered / nullif(outcomes + awaited, 0))
    END AS expected_rate_low,
    CASE
        WHEN is_known
            THEN least(rate + reach, (delivered + awaited) / nullif(outcomes + awaited, 0))
    END AS expected_rate_high
FROM reaches;

-- Seconds after sending up to which an awaited message was watched; 0 where nobody asked yet.
CREATE OR REPLACE MACRO usms_watched(r) AS
greatest(0, coalesce(floor(epoch(r.last_asked_at - r.sent_at)), 0));

-- `messages` names a relation with the columns of receipts, and more if need be. Grain: one value of
-- the column named, exactly so; the value is text, in `cohort`.
CREATE OR REPLACE MACRO usms_nowcast_by(messages, column_name, history_days) AS TABLE
WITH members AS (
    SELECT
        COLUMNS(lambda c: c = column_name)::VARCHAR AS cohort,
        r.country,
        r.is_final,
        r.status = 'delivered' AS is_delivered,
        NOT r.is_final AND NOT r.is_closed AS is_awaited,
        usms_watched(r) AS watched
    FROM query_table(messages) AS r
    WHERE r.is_announced
)
FROM usms_nowcast(members, history_days);

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
