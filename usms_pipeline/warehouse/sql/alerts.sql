-- delivery_alerts: what fails, or stays silent, more than it usually does, in the last 72 hours of
-- sending. One row a trouble; where else it shows is in `echoes`.
--
--   FROM delivery_alerts;
--
-- Like with like: looked at is what was known of a message at an age, one hour and one day after it
-- was sent, whenever we look. `failing`: known by then not to be delivered; `silent`: no final
-- status by then; both as a share of all messages sent. An hour of sending is looked at once all of
-- it is that old, and only if we asked at that age: a pause of ours is nobody's silence.
--
-- What is usual is learnt from the 28 days before the 72 hours, for each operator by hour of the
-- day and day of the week, as far as those differ by more than chance and days do. Six hours of an
-- operator or group that stand out from the same six hours of the other days are left out of it: an
-- outage is not usual. A group (all messages, an operator, a country, a value of a dimension) is
-- expected to do what its operators' messages of that hour usually do, times how it differed from
-- that before: so another mix of operators is no trouble. Operators and groups with under a hundred
-- messages before are left out.
--
-- A window of 1, 3, 6, 12 or 24 hours is as far from the usual as z standard deviations, 1 / z² = 1
-- / b² + 1 / s². b is chance: the signed root of the likelihood ratio of two binomials, so that a
-- short history proves little. s is how much such windows of the group differed by more than chance
-- before, in log odds (moments), by Student's t. How often a year something as far from the usual
-- would come by accident, over all that is looked at, is `false_a_year`. It must be under one, for
-- at least five messages and one in a hundred more than usual: less is not worth waking anyone.
--
-- Grain: a trouble, the one with most evidence (b²) first. since, until (the end of the last hour):
-- of the windows worse than usual the one with most evidence; messages, affected, share are its
-- own, usual_share is what was expected of it, within_hours the age. echoes: other groups and the
-- other kind at the same time, but not another value of the same column, whose messages are others:
-- that is a trouble of its own.
--
-- Last, and no trouble: kind `mix`, an operator that had a tenth more of all messages in the last 24
-- hours looked at (affected of messages) than before. What all messages do may change by that alone.

CREATE OR REPLACE MACRO usms_divergence(share, usual) AS
CASE WHEN share > 0 THEN share * ln(share / usual) ELSE 0 END
+ CASE WHEN share < 1 THEN (1 - share) * ln((1 - share) / (1 - usual)) ELSE 0 END;

CREATE OR REPLACE MACRO usms_log_odds(share) AS ln(share / (1 - share));

-- Seconds after sending from which on the service told the final status, as well as we can tell:
-- not before it dates it, nor before the latest question that found nothing. NULL without a final
-- status.
CREATE OR REPLACE MACRO usms_told_after(r) AS CASE
    WHEN r.is_final THEN greatest(0, ceil(usms_seconds(
        r.sent_at,
        greatest(
            CASE
                WHEN r.received_at >= r.sent_at THEN least(r.received_at, r.final_at)
                ELSE r.final_at
            END,
            CASE WHEN r.last_open_at < r.final_at THEN r.last_open_at END
        )
    )))
END;

-- Is it known what was known of a message at an age, in seconds? Not of a final status without a
-- time of its own that was first asked for long after that age. Seconds, for an interval added to a
-- time takes ten times as long, and a day of the reader's time zone may have 23 hours.
CREATE OR REPLACE MACRO usms_is_watched(m, age) AS
coalesce(usms_told_after(m) <= age, false)
OR coalesce(
    CASE
        WHEN NOT m.is_final THEN usms_seconds(m.sent_at, m.last_asked_at) >= age
        ELSE
            m.received_at >= m.sent_at
            OR usms_seconds(m.sent_at, m.last_open_at) >= age
            OR usms_seconds(m.sent_at, m.final_at) <= age + 3600
    END,
    false
);

-- The messages of the days looked at, counted once for all columns that are named, exactly so; ours
-- have names that no column of yours has. Grain: the columns' values and hour.
CREATE OR REPLACE MACRO usms_lately(column_names) AS TABLE
WITH messages AS (
    SELECT
        r.*,
        usms_hour(r.sent_at) AS usms_hour,
        newest.hour AS usms_now,
        r.status = 'delivered' AS usms_is_delivered,
        usms_told_after(r) AS usms_told_after,
        usms_is_watched(r, 3600) AS usms_is_watched,
        usms_is_watched(r, 86400) AS usms_is_watched_a_day
    FROM usms_named() AS r, (SELECT usms_hour(max(last_asked_at)) AS hour FROM receipts) AS newest
    WHERE
        r.is_announced
        AND r.status <> 'invalid'
        AND usms_hour(r.sent_at) > newest.hour - 31 * 24
)
SELECT
    COLUMNS(column_names),
    usms_hour,
    any_value(usms_now) AS usms_now,
    count(*) AS usms_sent,
    count(*) FILTER (usms_is_watched) AS usms_watched,
    count(*) FILTER (usms_told_after <= 3600) AS usms_told,
    count(*) FILTER (usms_told_after <= 3600 AND NOT usms_is_delivered) AS usms_failed,
    count(*) FILTER (usms_is_watched_a_day) AS usms_watched_a_day,
    count(*) FILTER (usms_told_after <= 86400) AS usms_told_a_day,
    count(*) FILTER (usms_told_after <= 86400 AND NOT usms_is_delivered) AS usms_failed_a_day
FROM messages
GROUP BY ALL;

-- `lately` names such a relation, with operator and country; column_name is one of its columns, or
-- usms_everything. The value is text, in `cohort`.
-- Grain: value, carrier and hour. Values of under a hundred messages are left out.
CREATE OR REPLACE MACRO usms_counts_by(lately, column_name) AS TABLE
WITH members AS NOT MATERIALIZED (
    SELECT
        *,
        coalesce("operator", country, '') AS usms_carrier,
        nullif(COLUMNS([column_name])::VARCHAR, '') AS usms_cohort
    FROM (SELECT *, 'all messages' AS usms_everything FROM query_table(lately))
)
SELECT
    CASE column_name WHEN 'usms_everything' THEN 'everything' ELSE column_name END AS by_column,
    usms_cohort AS cohort,
    usms_carrier AS carrier,
    usms_hour AS hour,
    any_value(usms_now) AS now,
    sum(usms_sent)::BIGINT AS sent,
    sum(usms_watched)::BIGINT AS watched,
    sum(usms_told)::BIGINT AS told,
    sum(usms_failed)::BIGINT AS failed,
    sum(usms_watched_a_day)::BIGINT AS watched_a_day,
    sum(usms_told_a_day)::BIGINT AS told_a_day,
    sum(usms_failed_a_day)::BIGINT AS failed_a_day
FROM members
-- Before the hours are counted: a column may have a value of its own for every message.
WHERE usms_cohort IN (
    SELECT usms_cohort FROM members GROUP BY usms_cohort HAVING sum(usms_sent) >= 100
)
GROUP BY usms_cohort, usms_carrier, usms_hour;

-- `counts` names such a relation. Grain: as there, and kind and age; `missed` of its messages were
-- not asked about at that age.
CREATE OR REPLACE MACRO usms_kinds(counts) AS TABLE
WITH kinds AS (
    SELECT
        by_column,
        cohort,
        carrier,
        hour,
        now,
        sent,
        unnest([
            {kind: 'failing', age: 1, messages: watched, affected: failed},
            {kind: 'silent', age: 1, messages: watched, affected: watched - told},
            {kind: 'failing', age: 24, messages: watched_a_day, affected: failed_a_day},
            {kind: 'silent', age: 24, messages: watched_a_day,
             affected: watched_a_day - told_a_day}
        ], recursive := true)
    FROM query_table(counts)
)
SELECT * EXCLUDE (sent), sent - messages AS missed
FROM kinds
WHERE hour < now - age;

-- `given` names a relation (by_column, cohort, kind, age, hour, now, messages, affected, expected),
-- where `expected` is right but for a factor. Gives its hours before the last 72, without the
-- blocks of six in which more were affected than the same six hours of the other days explain:
-- three times the usual difference, of which the highest tenth is not held to be usual.
CREATE OR REPLACE MACRO usms_without_outages(given) AS TABLE
WITH blocks AS (
    SELECT
        by_column,
        cohort,
        kind,
        age,
        hour // 6 AS block,
        sum(messages) AS messages,
        sum(affected) AS affected,
        sum(expected) AS expected
    FROM query_table(given)
    WHERE hour <= now - 72
    GROUP BY ALL
),
scaled AS (
    SELECT
        *,
        least(
            sum(affected) OVER same_hours / nullif(sum(expected) OVER same_hours, 0) * expected,
            messages
        ) AS usual
    FROM blocks
    WINDOW same_hours AS (PARTITION BY by_column, cohort, kind, age, block % 4)
),
strange AS (
    SELECT
        *,
        (affected - usual) / sqrt(greatest(usual * (1 - usual / messages), 0.25)) AS deviation
    FROM scaled
    WHERE messages > 0
),
judged AS (
    SELECT
        *,
        greatest(1, quantile_cont(abs(deviation), 0.9) OVER same_hours / 1.645) AS usual_deviation
    FROM strange
    WINDOW same_hours AS (PARTITION BY by_column, cohort, kind, age, block % 4)
)
SELECT g.*
FROM (SELECT *, hour // 6 AS block FROM query_table(given)) AS g
SEMI JOIN (FROM judged WHERE deviation <= 3 * usual_deviation) AS j
    USING (by_column, cohort, kind, age, block);

-- How far the means of k groups of n things are to be believed, 0 to 1: of their variance, the part
-- that chance within the groups does not explain. From sums of squares: of the things, of the
-- groups, of the whole.
CREATE OR REPLACE MACRO usms_trust(things, groups, whole, n, k) AS coalesce(CASE
    WHEN n > k AND k > 1 AND groups > whole
        THEN greatest(0, 1 - (things - groups) / (n - k) * (k - 1) / (groups - whole))
END, 0);

-- `carriers` names counts of all messages. Grain: carrier, kind, age and hour of the week: the share
-- that is usually affected.
CREATE OR REPLACE MACRO usms_usual(carriers) AS TABLE
WITH given AS (SELECT *, carrier AS cohort, messages AS expected FROM
    (SELECT * EXCLUDE (cohort) FROM query_table(carriers))),
hours AS MATERIALIZED (FROM usms_without_outages(given) WHERE messages > 0),
totals AS (
    SELECT carrier, kind, age, (sum(affected) + 0.5) / (sum(messages) + 1) AS usual
    FROM hours
    GROUP BY ALL
    HAVING sum(messages) >= 100
),
-- From here on of the rarer of two, affected or not: so that factors keep a share below 1.
rarer AS (
    SELECT
        carrier,
        kind,
        age,
        h.hour,
        t.usual > 0.5 AS is_turned,
        least(t.usual, 1 - t.usual) AS usual,
        h.messages * least(t.usual, 1 - t.usual) AS expected,
        CASE WHEN t.usual > 0.5 THEN h.messages - h.affected ELSE h.affected END AS affected
    FROM hours AS h
    JOIN totals AS t USING (carrier, kind, age)
),
by_hour AS (
    SELECT
        carrier,
        kind,
        age,
        hour % 24 AS of_day,
        is_turned,
        usual,
        count(*) AS things,
        sum(affected) AS affected,
        sum(expected) AS expected,
        sum(affected ** 2 / expected) AS squares
    FROM rarer
    GROUP BY carrier, kind, age, hour % 24, is_turned, usual
),
of_days AS (
    SELECT
        *,
        1 + (affected / expected - 1) * usms_trust(
            sum(squares) OVER of_carrier,
            sum(affected ** 2 / expected) OVER of_carrier,
            (sum(affected) OVER of_carrier) ** 2 / sum(expected) OVER of_carrier,
            sum(things) OVER of_carrier,
            count(*) OVER of_carrier
        ) AS factor
    FROM by_hour
    WINDOW of_carrier AS (PARTITION BY carrier, kind, age)
),
by_day AS (
    SELECT
        r.carrier,
        r.kind,
        r.age,
        r.hour // 24 AS day,
        sum(r.affected) AS affected,
        sum(r.expected * d.factor) AS expected
    FROM rarer AS r
    JOIN of_days AS d
        ON d.carrier = r.carrier AND d.kind = r.kind AND d.age = r.age AND d.of_day = r.hour % 24
    GROUP BY ALL
),
by_weekday AS (
    SELECT
        carrier,
        kind,
        age,
        day % 7 AS weekday,
        count(*) AS things,
        sum(affected) AS affected,
        sum(expected) AS expected,
        sum(affected ** 2 / expected) AS squares
    FROM by_day
    WHERE expected > 0
    GROUP BY ALL
),
of_weeks AS (
    SELECT
        *,
        1 + (affected / expected - 1) * usms_trust(
            sum(squares) OVER of_carrier,
            sum(affected ** 2 / expected) OVER of_carrier,
            (sum(affected) OVER of_carrier) ** 2 / sum(expected) OVER of_carrier,
            sum(things) OVER of_carrier,
            count(*) OVER of_carrier
        ) AS factor
    FROM by_weekday
    WINDOW of_carrier AS (PARTITION BY carrier, kind, age)
),
weekdays AS (SELECT unnest(range(7)) AS weekday),
of_hours AS (SELECT unnest(range(24)) AS of_day),
shares AS (
    SELECT
        t.carrier,
        t.kind,
        t.age,
        w.weekday * 24 + h.of_day AS hour_of_week,
        t.usual > 0.5 AS is_turned,
        least(
            0.999, least(t.usual, 1 - t.usual) * coalesce(d.factor, 1) * coalesce(o.factor, 1)
        ) AS share
    FROM totals AS t
    CROSS JOIN weekdays AS w
    CROSS JOIN of_hours AS h
    LEFT JOIN of_days AS d
        ON d.carrier = t.carrier AND d.kind = t.kind AND d.age = t.age AND d.of_day = h.of_day
    LEFT JOIN of_weeks AS o
        ON o.carrier = t.carrier AND o.kind = t.kind AND o.age = t.age AND o.weekday = w.weekday
)
SELECT
    carrier,
    kind,
    age,
    hour_of_week,
    CASE WHEN is_turned THEN 1 - share ELSE share END AS share
FROM shares;

-- `groups` names counts, `usual` what usms_usual makes of them. Grain: group, kind, age and hour.
CREATE OR REPLACE MACRO usms_expected(groups, usual) AS TABLE
SELECT
    g.by_column,
    g.cohort,
    g.kind,
    g.age,
    g.hour,
    any_value(g.now) AS now,
    sum(g.messages) AS messages,
    sum(g.affected) AS affected,
    sum(g.messages * u.share) AS expected
FROM query_table(groups) AS g
JOIN query_table(usual) AS u
    ON u.carrier = g.carrier
    AND u.kind = g.kind
    AND u.age = g.age
    AND u.hour_of_week = g.hour % 168
WHERE g.messages > 0
GROUP BY g.by_column, g.cohort, g.kind, g.age, g.hour;

-- `given` names what usms_expected gives. Grain: group, kind, age and size of window, of those that
-- are worse than usual: the window furthest out.
CREATE OR REPLACE MACRO usms_out_of_line(given) AS TABLE
WITH history AS MATERIALIZED (FROM usms_without_outages(given)),
factors AS (
    SELECT
        by_column,
        cohort,
        kind,
        age,
        -- A third: what is usual at an hour of the week is known from a part of them only.
        sum(messages) / 3 AS before,
        sum(expected) > 0.5 * sum(messages) AS is_turned,
        CASE
            WHEN sum(expected) > 0.5 * sum(messages)
                THEN (sum(messages - affected) + 0.5) / (sum(messages - expected) + 0.5)
            ELSE (sum(affected) + 0.5) / (sum(expected) + 0.5)
        END AS factor
    FROM history
    GROUP BY ALL
    HAVING sum(messages) >= 100
),
fitted AS MATERIALIZED (
    SELECT
        e.* REPLACE (
            e.messages * greatest(1e-6, least(1 - 1e-6, CASE
                WHEN f.is_turned THEN 1 - f.factor * (1 - e.expected / e.messages)
                ELSE f.factor * e.expected / e.messages
            END)) AS expected
        ),
        f.before
    FROM query_table(given) AS e
    JOIN factors AS f USING (by_column, cohort, kind, age)
),
-- Sizes share what may be false. Most is the single hour's: outages are short.
sizes AS (
    SELECT unnest([
        {size: 1, part: 0.7}, {size: 3, part: 0.15}, {size: 6, part: 0.08},
        {size: 12, part: 0.04}, {size: 24, part: 0.03}
    ], recursive := true)
),
blocks AS (
    SELECT
        f.by_column,
        f.cohort,
        f.kind,
        f.age,
        s.size,
        sum(f.affected) - sum(f.expected) AS excess,
        sum(f.expected) * (1 - sum(f.expected) / sum(f.messages)) AS variance
    FROM (FROM fitted SEMI JOIN history USING (by_column, cohort, kind, age, hour)) AS f, sizes AS s
    GROUP BY f.by_column, f.cohort, f.kind, f.age, s.size, f.hour // s.size
),
spreads AS (
    SELECT
        by_column,
        cohort,
        kind,
        age,
        size,
        greatest(28, count(*)) AS blocks,  -- so well, at least, the others' is known
        -- Not its own alone: of a group's few blocks it may be 0 by accident.
        greatest(
            1e-9,
            sum(excess ** 2 - variance) / sum(variance ** 2),
            sum(sum(excess ** 2 / variance - 1)) OVER alike / sum(sum(variance)) OVER alike
        ) AS spread
    FROM blocks
    GROUP BY by_column, cohort, kind, age, size
    WINDOW alike AS (PARTITION BY by_column, kind, age, size)
),
windows AS (
    SELECT
        f.* EXCLUDE (messages, affected, expected),
        s.size,
        s.part,
        sum(f.messages) OVER lately AS messages,
        sum(f.affected) OVER lately AS affected,
        sum(f.expected) OVER lately AS expected
    FROM fitted AS f, sizes AS s
    WHERE f.hour > f.now - 72
    WINDOW lately AS (
        PARTITION BY f.by_column, f.cohort, f.kind, f.age, s.size
        ORDER BY f.hour
        RANGE BETWEEN s.size - 1 PRECEDING AND CURRENT ROW
    )
),
looks AS (
    SELECT
        *,
        expected / messages AS usual,
        (affected - 0.5) / messages AS share,
        (affected - 0.5 + before * expected / messages) / (messages + before) AS of_both
    FROM windows
    WHERE hour - size >= now - 72 AND messages - expected >= 5
),
deviations AS (
    SELECT
        l.*,
        (SELECT count(*) FROM (SELECT DISTINCT by_column, cohort, kind, age FROM looks)) AS series,
        l.messages * usms_divergence(l.share, l.of_both)
        + l.before * usms_divergence(l.usual, l.of_both) AS evidence,
        1 / sqrt(
            0.5 / evidence
            + 1 / (
                s.blocks * ln(
                    1 + (usms_log_odds(l.share) - usms_log_odds(l.usual)) ** 2
                    / (s.blocks * s.spread)
                )
            )
        ) AS z
    FROM looks AS l
    JOIN spreads AS s USING (by_column, cohort, kind, age, size)
    WHERE
        l.affected - l.expected >= 5
        AND l.affected - l.expected >= 0.01 * l.messages
)
SELECT
    by_column,
    cohort,
    kind,
    age,
    hour,
    size,
    messages,
    affected,
    expected,
    evidence,
    -(z ** 2) / 2 - ln(z * sqrt(2 * pi()))
    + ln(series * 8766 / size / part * CASE size WHEN 1 THEN 1 ELSE 2 END) AS log_a_year
FROM deviations;

-- `found` names windows as usms_out_of_line gives them. Grain: a trouble.
CREATE OR REPLACE MACRO usms_troubles(found) AS TABLE
WITH furthest AS (
    SELECT
        *,
        hour - size + 1 AS begins,
        row_number() OVER (
            ORDER BY evidence DESC, by_column = 'everything', by_column DESC, cohort, kind
        ) AS place
    FROM query_table(found)
    -- of windows alike, for nothing more was sent in the longer one, the shortest
    QUALIFY row_number() OVER (
        PARTITION BY kind, by_column, cohort ORDER BY evidence DESC, size, age, hour
    ) = 1
),
stronger AS (
    SELECT one.place, other.place AS leader
    FROM furthest AS one
    JOIN furthest AS other
        ON other.place < one.place
        AND other.begins <= one.hour
        AND one.begins <= other.hour
        AND (other.by_column <> one.by_column OR other.cohort = one.cohort)
),
leaders AS (
    SELECT place FROM furthest ANTI JOIN stronger USING (place)
),
echoes AS (
    SELECT s.place, min(s.leader) AS leader
    FROM stronger AS s
    JOIN leaders AS l ON l.place = s.leader
    GROUP BY s.place
),
told AS (
    -- One that only echoes of others lead to is told for itself.
    SELECT f.*, coalesce(e.leader, f.place) AS leader
    FROM furthest AS f
    LEFT JOIN echoes AS e USING (place)
),
listed AS (
    SELECT
        leader AS place,
        list({
            kind: kind,
            by_column: by_column,
            cohort: cohort,
            messages: messages::BIGINT,
            affected: affected::BIGINT,
            share: affected / messages,
            usual_share: expected / messages
        } ORDER BY place) AS echoes
    FROM told
    WHERE leader <> place
    GROUP BY leader
)
SELECT
    t.kind,
    t.by_column,
    t.cohort,
    make_timestamptz(3600000000 * t.begins) AS since,
    make_timestamptz(3600000000 * (t.hour + 1)) AS until,
    t.age AS within_hours,
    t.messages::BIGINT AS messages,
    t.affected::BIGINT AS affected,
    t.affected / t.messages AS share,
    t.expected / t.messages AS usual_share,
    exp(t.log_a_year) AS false_a_year,
    coalesce(l.echoes, []) AS echoes
FROM told AS t
LEFT JOIN listed AS l USING (place)
WHERE t.leader = t.place
ORDER BY t.place;

-- Grain: an operator that had a tenth more of all messages in the last 24 hours than before.
CREATE OR REPLACE MACRO usms_mix(carriers) AS TABLE
WITH shares AS (
    SELECT
        carrier,
        any_value(now) AS now,
        coalesce(sum(messages) FILTER (hour >= now - 25), 0) AS lately,
        coalesce(sum(messages) FILTER (hour <= now - 72), 0) AS before,
        sum(coalesce(sum(messages) FILTER (hour >= now - 25), 0)) OVER () AS all_lately,
        sum(coalesce(sum(messages) FILTER (hour <= now - 72), 0)) OVER () AS all_before
    FROM query_table(carriers)
    WHERE kind = 'silent' AND age = 1
    GROUP BY carrier
)
SELECT
    'mix' AS kind,
    'operator' AS by_column,
    nullif(carrier, '') AS cohort,
    make_timestamptz(3600000000 * (now - 25)) AS since,
    make_timestamptz(3600000000 * (now - 1)) AS until,
    NULL::INT AS within_hours,
    all_lately::BIGINT AS messages,
    lately::BIGINT AS affected,
    lately / all_lately AS share,
    before / all_before AS usual_share,
    NULL::DOUBLE AS false_a_year,
    [] AS echoes
FROM shares
WHERE
    all_lately >= 100
    AND all_before >= 100
    AND lately / all_lately - before / all_before >= 0.1
ORDER BY share - usual_share DESC, cohort;

-- `kinds` names a relation as usms_kinds gives it, of several columns, everything among them.
CREATE OR REPLACE MACRO usms_alerts(kinds) AS TABLE
WITH asked AS MATERIALIZED (
    -- Where one message in a hundred was not asked about at the age, we can't tell.
    SELECT hour, age
    FROM query_table(kinds)
    WHERE by_column = 'everything'
    GROUP BY hour, age
    HAVING sum(missed) <= 0.01 * sum(messages + missed)
),
carriers AS MATERIALIZED (
    FROM query_table(kinds) SEMI JOIN asked USING (hour, age) WHERE by_column = 'everything'
),
usual AS MATERIALIZED (FROM usms_usual(carriers)),
expected AS MATERIALIZED (FROM usms_expected(kinds, usual) SEMI JOIN asked USING (hour, age)),
found AS (FROM usms_out_of_line(expected) WHERE log_a_year < 0)
FROM usms_troubles(found)
UNION ALL
FROM usms_mix(carriers);
