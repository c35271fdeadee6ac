-- Grain: one day. dbt's metrics need a table of days without gaps.
SELECT unnest(generate_series(min(sent_date), max(sent_date), INTERVAL 1 DAY))::DATE AS day
FROM {{ source('usms', 'delivery_rate_daily') }}
