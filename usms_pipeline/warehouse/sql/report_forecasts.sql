-- Forecasts of the page's periods and days, and changes, of all and of each single value: a template,
-- for report/periods.py to fill in. Of groups of which nothing is awaited the rate is what is
-- counted, and only the others are forecast. Grain: kind ('guess', 'day' or 'change') and cohort.
WITH members AS ({members}),
history AS MATERIALIZED (FROM usms_history(28)),
-- Grain: day, the last two times 24 hours, values; and what a forecast asks of a message.
totals AS MATERIALIZED (
    SELECT usms_day, sent_date {keys},
        CASE WHEN hour > {a_day_ago} THEN '1:0'
            WHEN hour > {two_days_ago} THEN '1:1' END AS usms_recent,
        usms_is_awaited AS is_awaited, usms_carrier AS carrier,
        usms_three_hours AS three_hours, usms_step AS step, count(*) AS messages,
        count(*) FILTER (is_final) AS finals,
        count(*) FILTER (status = 'delivered') AS delivered
    FROM usms_to_forecast(members)
    GROUP BY ALL
),
parts AS (SELECT *, unnest([{parts}]) AS part FROM totals),
grouped AS (SELECT *, unnest([{windows}]) AS usms_window FROM parts),
-- Grain: column and period (or day); and what a forecast asks of a message.
known AS MATERIALIZED (
    SELECT usms_window || ':' || part AS cohort, part,
        any_value(sent_date) AS sent_date,
        (SELECT any_value(moment) FROM history) AS moment,
        is_awaited, carrier, three_hours, step, sum(messages) AS messages,
        sum(finals) AS finals, sum(delivered) AS delivered
    FROM grouped
    WHERE usms_window IS NOT NULL
    GROUP BY ALL
),
counted AS MATERIALIZED (
    SELECT cohort, any_value(part) AS part, any_value(sent_date) AS sent_date,
        sum(messages) AS messages, sum(finals) AS n, sum(delivered) AS k,
        coalesce(sum(messages) FILTER (is_awaited), 0) AS awaited
    FROM known GROUP BY cohort
),
asked AS (
    FROM known SEMI JOIN (FROM counted SELECT cohort WHERE awaited > 0) AS open
        USING (cohort)
),
guesses AS MATERIALIZED (FROM usms_nowcast(asked, history)),
daily AS MATERIALIZED (
    SELECT c.part AS cohort, c.sent_date, DATE '{last}' AS last_day, c.messages, c.n,
        c.n * coalesce(g.expected_rate, c.k / nullif(c.n, 0), 0) AS k
    FROM counted AS c LEFT JOIN guesses AS g USING (cohort)
    WHERE starts_with(c.cohort, 'day:')
),
{dailies}
SELECT 'guess' AS kind, cohort,
    coalesce(g.expected_rate, c.k / nullif(c.n, 0)) AS value,
    g.expected_rate_low AS low, g.expected_rate_high AS high,
    least(low, wilson_low(value * c.n, c.n)) AS chance_low,
    greatest(high, wilson_high(value * c.n, c.n)) AS chance_high
FROM counted AS c LEFT JOIN guesses AS g USING (cohort)
WHERE NOT starts_with(cohort, 'day:')
UNION ALL
SELECT 'day', cohort, expected_rate, expected_rate_low, expected_rate_high, NULL, NULL
FROM guesses WHERE starts_with(cohort, 'day:')
UNION ALL {changes}
