-- delivery_alerts: what fails, or stays silent, more than it usually does, in the last 72 hours of
-- sending. One row a trouble; where else it shows is in `echoes`.
--
--   FROM delivery_alerts;
--
-- Like with like: looked at is what was known of a message at an age, one hour and one day after it
-- was sent, whenever we look. `failing`: known by then not to be delivered; `silent`: no outcome by
-- then; both as a share of all messages sent. An hour of sending is looked at once all of it is that
-- old, and only if we asked at that age: a pause of ours is nobody's silence.
--
-- What is usual is learnt from the 28 days before the 72 hours, for each operator by hour of the day
-- and day of the week, as far as they show a difference (100 messages of no difference are added to
-- each). Six hours of an operator or group that stand out from the same six hours of the other days
-- are left out of it: an outage is not usual. A group (all messages, an operator, a country, a value
-- of a dimension) is expected to do what its operators' messages of that hour usually do, times how
-- it differed from that before: so another mix of operators is no trouble. Operators and groups with
-- under a hundred messages before are left out.
--
-- A window of 1, 3, 8 or 24 hours is as far out of line as z standard deviations, 1 / z² = 1 / b² +
-- 1 / s². b is chance: the signed root of the likelihood ratio of two binomials, so that a short
-- history proves little. s is how much such windows of the group differed by more than chance before,
-- in log odds (moments), by Student's t. How often a year something so far out of line would come by
-- accident, over all that is looked at, is `false_a_year`. It must be under one in ten, for at
-- least five messages and one in a hundred more than usual: less is not worth waking anyone.
--
-- Grain: a trouble, the one furthest out of line first. since, until (the end of the last hour): the
-- window furthest out of line; messages, affected, share are its own, usual_share is what was
-- expected of it, within_hours the age. echoes: other groups and the other kind at the same time,
-- but not another value of the same column, whose messages are others: that is a trouble of its own.

CREATE OR REPLACE MACRO usms_divergence(share, usual) AS
CASE WHEN share > 0 THEN share * ln(share / usual) ELSE 0 END
+ CASE WHEN share < 1 THEN (1 - share) * ln((1 - share) / (1 - usual)) ELSE 0 END;

CREATE OR REPLACE MACRO usms_log_odds(share) AS ln(share / (1 - share));

-- Is it known what was known of a message `age` seconds after its sending?
CREATE OR REPLACE MACRO usms_is_watched(m, age) AS
coalesce(m.usms_shown_after <= age, false)
OR (NOT m.is_final AND coalesce(m.last_asked_at >= m.sent_at + to_seconds(age), false))
OR (
    m.is_final
    AND (m.received_at >= m.sent_at OR m.first_asked_at <= m.sent_at + to_seconds(age))
);

-- The messages of the days looked at; names that no column of yours has. Grain: message.
CREATE OR REPLACE MACRO usms_lately() AS TABLE
SELECT
    r.*,
    'all messages' AS usms_everything,
    coalesce(r."operator", r.country, '') AS usms_carrier,
    usms_hour(r.sent_at) AS usms_hour,
    newest.hour AS usms_now,
    usms_shown_after(r) AS usms_shown_after
FROM usms_named() AS r, (SELECT usms_hour(max(last_asked_at)) AS hour FROM receipts) AS newest
WHERE
    r.is_announced
    AND r.status <> 'invalid'
    AND usms_hour(r.sent_at) > newest.hour - 31 * 24;

-- By any column of usms_lately, named exactly; the value is text, in `cohort`. Grain: value, carrier,
-- hour, kind and age; `missed` of its messages were not asked about at that age.
CREATE OR REPLACE MACRO usms_counts_by(column_name) AS TABLE
WITH members AS NOT MATERIALIZED (
    SELECT
        nullif(COLUMNS(lambda c: c = column_name)::VARCHAR, '') AS cohort,
        m.usms_carrier AS carrier,
        m.usms_hour AS hour,
        m.usms_now AS now,
        m.status = 'delivered' AS is_delivered,
        m.usms_shown_after AS shown_after,
        usms_is_watched(m, 3600) AS is_watched,
        usms_is_watched(m, 86400) AS is_watched_a_day
    FROM usms_lately() AS m
),
counted AS (
    SELECT
        cohort,
        carrier,
        hour,
        any_value(now) AS now,
        count(*) AS sent,
        count(*) FILTER (is_watched) AS watched,
        count(*) FILTER (shown_after <= 3600) AS shown,
        count(*) FILTER (shown_after <= 3600 AND NOT is_delivered) AS failed,
        count(*) FILTER (is_watched_a_day) AS watched_a_day,
        count(*) FILTER (shown_after <= 86400) AS shown_a_day,
        count(*) FILTER (shown_after <= 86400 AND NOT is_delivered) AS failed_a_day
    FROM members
    -- Before the hours are counted: a column may have a value of its own for every message.
    WHERE cohort IN (SELECT cohort FROM members GROUP BY cohort HAVING count(*) >= 100)
    GROUP BY cohort, carrier, hour
),
kinds AS (
    SELECT
        * EXCLUDE (watched, shown, failed, watched_a_day, shown_a_day, failed_a_day),
        unnest([
            {kind: 'failing', age: 1, messages: watched, affected: failed},
            {kind: 'silent', age: 1, messages: watched, affected: watched - shown},
            {kind: 'failing', age: 24, messages: watched_a_day, affected: failed_a_day},
            {kind: 'silent', age: 24, messages: watched_a_day,
             affected: watched_a_day - shown_a_day}
        ], recursive := true)
    FROM counted
)
SELECT
    CASE column_name WHEN 'usms_everything' THEN 'everything' ELSE column_name END AS by_column,
    cohort,
    carrier,
    hour,
    now,
    kind,
    age,
    messages,
    affected,
    sent - messages AS missed
FROM kinds
WHERE hour < now - age;
