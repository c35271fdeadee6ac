-- The figures of delivery_rate_daily, over the Parquet dataset instead of usms.duckdb.
-- Made from usms_pipeline/warehouse/sql/figures.sql by `python -m tests.readme_tables`.
--
-- Change only what is marked, what to group by and what you call the table, and the 72 hours if
-- your USMS_CUTOFF_HOURS is another.
WITH members AS (
    SELECT
        sent_date AS cohort,  -- what to group by
        delivery_seconds,
        first_asked_at,
        is_announced,
        is_closed,
        is_final,
        sent_at,
        status,
        CASE WHEN is_announced AND status = 'delivered' AND delivery_seconds >= 0 THEN 1 ELSE 0 END AS latencies_in,
        delivery_seconds AS latencies_value,
        CASE WHEN is_announced AND ((status = 'delivered' AND delivery_seconds >= 0) OR (NOT is_final AND NOT is_closed)) THEN 1 ELSE 0 END AS longest_in,
        coalesce(delivery_seconds, 1e300) AS longest_value
    FROM receipts  -- the table
    WHERE is_announced
),
ranked AS (
    SELECT
        *,
        row_number() OVER (PARTITION BY cohort, latencies_in ORDER BY latencies_value) - 1 AS latencies_rank,
        count(*) OVER (PARTITION BY cohort, latencies_in) - 1 AS latencies_last,
        row_number() OVER (PARTITION BY cohort, longest_in ORDER BY longest_value) - 1 AS longest_rank,
        count(*) OVER (PARTITION BY cohort, longest_in) - 1 AS longest_last
    FROM members
),
counted AS (
    SELECT
        cohort,
        count(CASE WHEN is_announced THEN 1 END) AS messages,
        count(CASE WHEN is_announced AND status = 'delivered' THEN 1 END) AS delivered,
        count(CASE WHEN is_announced AND status = 'failed' THEN 1 END) AS failed,
        count(CASE WHEN is_announced AND status = 'rejected' THEN 1 END) AS rejected,
        count(CASE WHEN is_announced AND status = 'expired' THEN 1 END) AS expired,
        count(CASE WHEN is_announced AND status = 'unknown' THEN 1 END) AS unknown,
        count(CASE WHEN is_announced AND status = 'pending' THEN 1 END) AS pending,
        count(CASE WHEN is_announced AND status = 'unrecognized' THEN 1 END) AS unrecognized,
        count(CASE WHEN is_announced AND status = 'invalid' THEN 1 END) AS invalid,
        count(CASE WHEN is_announced AND NOT is_final AND NOT is_closed THEN 1 END) AS awaited,
        count(CASE WHEN is_announced AND is_final THEN 1 END) AS with_evidence,
        count(CASE WHEN is_announced AND NOT is_final AND status <> 'invalid' AND first_asked_at > sent_at + INTERVAL '72' HOUR THEN 1 END) AS first_asked_too_late,
        max(CASE WHEN latencies_in = 1 AND latencies_rank = floor(0.5e0 * latencies_last) THEN latencies_value END) AS latencies_1_floor,
        max(CASE WHEN latencies_in = 1 AND latencies_rank = ceil(0.5e0 * latencies_last) THEN latencies_value END) AS latencies_1_ceil,
        max(CASE WHEN latencies_in = 1 THEN 0.5e0 * latencies_last - floor(0.5e0 * latencies_last) END) AS latencies_1_part,
        max(CASE WHEN latencies_in = 1 AND latencies_rank = floor(0.9e0 * latencies_last) THEN latencies_value END) AS latencies_2_floor,
        max(CASE WHEN latencies_in = 1 AND latencies_rank = ceil(0.9e0 * latencies_last) THEN latencies_value END) AS latencies_2_ceil,
        max(CASE WHEN latencies_in = 1 THEN 0.9e0 * latencies_last - floor(0.9e0 * latencies_last) END) AS latencies_2_part,
        max(CASE WHEN latencies_in = 1 AND latencies_rank = floor(0.99e0 * latencies_last) THEN latencies_value END) AS latencies_3_floor,
        max(CASE WHEN latencies_in = 1 AND latencies_rank = ceil(0.99e0 * latencies_last) THEN latencies_value END) AS latencies_3_ceil,
        max(CASE WHEN latencies_in = 1 THEN 0.99e0 * latencies_last - floor(0.99e0 * latencies_last) END) AS latencies_3_part,
        max(CASE WHEN longest_in = 1 AND longest_rank = floor(0.5e0 * longest_last) THEN longest_value END) AS longest_1_floor,
        max(CASE WHEN longest_in = 1 AND longest_rank = ceil(0.5e0 * longest_last) THEN longest_value END) AS longest_1_ceil,
        max(CASE WHEN longest_in = 1 THEN 0.5e0 * longest_last - floor(0.5e0 * longest_last) END) AS longest_1_part,
        max(CASE WHEN longest_in = 1 AND longest_rank = floor(0.9e0 * longest_last) THEN longest_value END) AS longest_2_floor,
        max(CASE WHEN longest_in = 1 AND longest_rank = ceil(0.9e0 * longest_last) THEN longest_value END) AS longest_2_ceil,
        max(CASE WHEN longest_in = 1 THEN 0.9e0 * longest_last - floor(0.9e0 * longest_last) END) AS longest_2_part,
        max(CASE WHEN longest_in = 1 AND longest_rank = floor(0.99e0 * longest_last) THEN longest_value END) AS longest_3_floor,
        max(CASE WHEN longest_in = 1 AND longest_rank = ceil(0.99e0 * longest_last) THEN longest_value END) AS longest_3_ceil,
        max(CASE WHEN longest_in = 1 THEN 0.99e0 * longest_last - floor(0.99e0 * longest_last) END) AS longest_3_part
    FROM ranked
    GROUP BY cohort
),
measured AS (
    SELECT
        *,
        latencies_1_floor + (latencies_1_ceil - latencies_1_floor) * latencies_1_part AS latencies_1,
        latencies_2_floor + (latencies_2_ceil - latencies_2_floor) * latencies_2_part AS latencies_2,
        latencies_3_floor + (latencies_3_ceil - latencies_3_floor) * latencies_3_part AS latencies_3,
        longest_1_floor + (longest_1_ceil - longest_1_floor) * longest_1_part AS longest_1,
        longest_2_floor + (longest_2_ceil - longest_2_floor) * longest_2_part AS longest_2,
        longest_3_floor + (longest_3_ceil - longest_3_floor) * longest_3_part AS longest_3
    FROM counted
)
SELECT
    cohort,
    messages,
    delivered,
    failed,
    rejected,
    expired,
    unknown,
    pending,
    unrecognized,
    invalid,
    awaited,
    awaited * 1e0 / nullif(messages, 0) AS awaited_rate,
    with_evidence * 1e0 / nullif(messages, 0) AS receipt_coverage,
    delivered * 1e0 / nullif(with_evidence, 0) AS delivery_rate,
    CASE WHEN awaited = 0 THEN (CASE WHEN delivered > 0 THEN ((delivered + 1.920729440648e0 + -1 * 1.959964e0 * sqrt(delivered * 1e0 / nullif(with_evidence, 0) * (with_evidence - delivered) + 0.960364720324e0)) * 1e0 / (with_evidence + 3.841458881296e0)) ELSE delivered * 1e0 / nullif(with_evidence, 0) END) END AS delivery_rate_ci_low,
    CASE WHEN awaited = 0 THEN (CASE WHEN delivered < with_evidence THEN ((delivered + 1.920729440648e0 + 1 * 1.959964e0 * sqrt(delivered * 1e0 / nullif(with_evidence, 0) * (with_evidence - delivered) + 0.960364720324e0)) * 1e0 / (with_evidence + 3.841458881296e0)) ELSE delivered * 1e0 / nullif(with_evidence, 0) END) END AS delivery_rate_ci_high,
    delivered * 1e0 / nullif(messages, 0) AS delivery_rate_if_rest_failed,
    (messages - failed - rejected - expired) * 1e0 / nullif(messages, 0) AS delivery_rate_if_rest_arrived,
    (CASE WHEN longest_1 <= 1.25 * latencies_1 THEN latencies_1 END) AS latency_p50_seconds,
    (CASE WHEN longest_2 <= 1.25 * latencies_2 THEN latencies_2 END) AS latency_p90_seconds,
    (CASE WHEN longest_3 <= 1.25 * latencies_3 THEN latencies_3 END) AS latency_p99_seconds,
    first_asked_too_late
FROM measured
ORDER BY cohort
