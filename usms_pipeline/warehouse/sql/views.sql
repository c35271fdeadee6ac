-- The delivery figures by day, hour, country, operator and any other column; what fails and why.
-- Figures: figures.sql. Filtering on is_announced here only keeps groups of nothing out.

-- Grain: sent_date, the local day of sending.
CREATE OR REPLACE VIEW delivery_rate_daily AS
SELECT sent_date, unnest(figures)
FROM (
    SELECT r.sent_date, delivery_figures(r) AS figures
    FROM receipts AS r
    WHERE r.is_announced
    GROUP BY r.sent_date
)
ORDER BY sent_date;

COMMENT ON VIEW delivery_rate_daily IS 'delivery figures by local day of sending';

-- Grain: hour of sending, in UTC for every TimeZone of the session.
CREATE OR REPLACE VIEW delivery_rate_hourly AS
SELECT sent_hour, unnest(figures)
FROM (
    SELECT
        date_trunc('hour', r.sent_at AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS sent_hour,
        delivery_figures(r) AS figures
    FROM receipts AS r
    WHERE r.is_announced
    GROUP BY 1
)
ORDER BY sent_hour;

COMMENT ON VIEW delivery_rate_hourly IS 'delivery figures by hour of sending (UTC)';

-- Grain: country of the recipient's number; NULL where the number is not known yet.
CREATE OR REPLACE VIEW delivery_rate_by_country AS
SELECT country, unnest(figures)
FROM (
    SELECT r.country, delivery_figures(r) AS figures
    FROM receipts AS r
    WHERE r.is_announced
    GROUP BY r.country
)
ORDER BY figures.messages DESC, country;

COMMENT ON VIEW delivery_rate_by_country IS 'delivery figures by country of the number';

-- Grain: country and operator, for operators of two countries can share a name.
CREATE OR REPLACE VIEW delivery_rate_by_operator AS
SELECT country, "operator", unnest(figures)
FROM (
    SELECT r.country, r."operator" AS "operator", delivery_figures(r) AS figures
    FROM receipts AS r
    WHERE r.is_announced
    GROUP BY r.country, r."operator"
)
ORDER BY figures.messages DESC, country, "operator";

COMMENT ON VIEW delivery_rate_by_operator IS 'delivery figures by country and operator';

-- Whether a day is one of those from `first` to `last`, both included; NULL is no limit.
CREATE OR REPLACE MACRO usms_is_between(day, first, last) AS
day >= coalesce(first::DATE, day) AND day <= coalesce(last::DATE, day);

-- Grain: one value of the column named, exactly so; `first` and `last` are local days of sending,
-- both included. An operator's value is its name with the country (usms_named).
--
--   FROM delivery_rate_by('template_id', first := '2024-03-01', last := '2024-03-07');
CREATE OR REPLACE MACRO delivery_rate_by(column_name, first := NULL, last := NULL) AS TABLE
WITH cohorts AS (
    SELECT COLUMNS([usms_column(column_name)]), delivery_figures(r) AS figures
    FROM usms_named() AS r
    WHERE
        r.is_announced
        AND usms_is_between(r.sent_date, first, last)
    GROUP BY ALL
)
SELECT * EXCLUDE (figures), unnest(figures)
FROM cohorts
ORDER BY figures.messages DESC, 1;

COMMENT ON MACRO TABLE delivery_rate_by IS 'delivery figures by any column';

-- Grain: the service's code and description, and the status they came with. A code alone says
-- little: it means different things at different operators. `share` is of all failures.
CREATE OR REPLACE VIEW failures AS
SELECT
    provider_code,
    provider_desc,
    status,
    count(*) AS messages,
    count(*) / sum(count(*)) OVER () AS share,
    min(coalesce(received_at, final_at)) AS first_seen_at,
    max(coalesce(received_at, final_at)) AS last_seen_at
FROM receipts
WHERE is_announced AND status IN ('failed', 'rejected', 'expired')
GROUP BY provider_code, provider_desc, status
ORDER BY messages DESC, provider_code, provider_desc, status;

COMMENT ON VIEW failures IS 'messages that failed, were rejected or expired, by reason';

-- Grain: a value of the column named, and within it as `failures`; `share` is of the value's
-- failures. The value is text, in `cohort`, for one may ask by `status` or `provider_code` too.
CREATE OR REPLACE MACRO failures_by(column_name, first := NULL, last := NULL) AS TABLE
WITH members AS (
    SELECT
        COLUMNS([usms_column(column_name)])::VARCHAR AS cohort,
        r.provider_code,
        r.provider_desc,
        r.status,
        coalesce(r.received_at, r.final_at) AS seen_at
    FROM usms_named() AS r
    WHERE
        r.is_announced
        AND r.status IN ('failed', 'rejected', 'expired')
        AND usms_is_between(r.sent_date, first, last)
)
SELECT
    cohort,
    provider_code,
    provider_desc,
    status,
    count(*) AS messages,
    count(*) / sum(count(*)) OVER (PARTITION BY cohort) AS share,
    min(seen_at) AS first_seen_at,
    max(seen_at) AS last_seen_at
FROM members
GROUP BY cohort, provider_code, provider_desc, status
ORDER BY messages DESC, cohort, provider_code, provider_desc, status;

COMMENT ON MACRO TABLE failures_by IS 'failures by any column, and by reason';

-- Grain: sent_date, the local day of sending, and within it as `failures`.
CREATE OR REPLACE VIEW failures_daily AS
SELECT cohort::DATE AS sent_date, * EXCLUDE (cohort)
FROM failures_by('sent_date')
ORDER BY sent_date, messages DESC, provider_code, provider_desc, status;

COMMENT ON VIEW failures_daily IS 'failures by local day of sending and by reason';

-- Grain: recipient with two or more messages that failed or expired since the last that arrived.
-- Rejected ones do not count: they are refused for what was sent as often as for whom it was sent
-- to.
CREATE OR REPLACE VIEW failing_recipients AS
WITH suspects AS (
    SELECT recipient, max(sent_at) FILTER (status = 'delivered') AS delivered_at
    FROM receipts
    WHERE is_announced AND NOT starts_with(recipient, 'unheard-')
    GROUP BY recipient
    HAVING count(*) FILTER (status IN ('failed', 'expired')) >= 2
)
SELECT
    r.recipient,
    any_value(r.phone) AS phone,
    any_value(r.country) AS country,
    any_value(r."operator") AS "operator",
    count(*) AS failures,
    min(r.sent_at) AS since,
    max(r.sent_at) AS last_sent_at,
    arg_max({code: r.provider_code, words: r.provider_desc}, r.sent_at).code AS last_provider_code,
    arg_max({code: r.provider_code, words: r.provider_desc}, r.sent_at).words
        AS last_provider_desc
FROM receipts AS r
JOIN suspects AS s ON s.recipient = r.recipient
WHERE
    r.is_announced
    AND r.status IN ('failed', 'expired')
    AND coalesce(r.sent_at > s.delivered_at, true)
GROUP BY r.recipient
HAVING count(*) >= 2
ORDER BY failures DESC, r.recipient;

COMMENT ON VIEW failing_recipients IS
'recipients with two or more failed or expired messages since their last delivery';
