-- The one definition of the delivery figures. Every view, macro, chart and command takes them
-- from here; metrics.py says in words what each means.
--
-- delivery_figures(r): aggregate. `r` is the alias of `receipts`, or of anything that has its
-- columns, such as as_of(…). Gives one STRUCT a group, over only recipients in your table: extra
-- phones exist only because a receipt came for them, so they would flatter the rates.
-- A share of nothing is NULL. Rates are 0 to 1, latencies seconds.
--
--   SELECT country, unnest(delivery_figures(r)) FROM receipts AS r GROUP BY country
--
-- usms_cutoff() is made at publishing, from the setting `cutoff_hours`.

-- wilson_low(k, n), wilson_high(k, n): the 95 % interval of a share of which k of n were seen
-- (E. B. Wilson, J. Amer. Statist. Assoc. 22, 1927, 209-212). 1.96 is the normal quantile.
-- The other numbers are its square, and a half and a quarter of that.
CREATE OR REPLACE MACRO usms_wilson(k, n, direction) AS (
    k + 1.920729440648e0
    + direction * 1.959964e0 * sqrt(k / nullif(n, 0) * (n - k) + 0.960364720324e0)
) / (n + 3.841458881296e0);

-- Not greatest(0, …): that would make 0 of NULL.
CREATE OR REPLACE MACRO wilson_low(k, n) AS
CASE WHEN k > 0 THEN usms_wilson(k, n, -1) ELSE k / nullif(n, 0) END;

CREATE OR REPLACE MACRO wilson_high(k, n) AS
CASE WHEN k < n THEN usms_wilson(k, n, 1) ELSE k / nullif(n, 0) END;

COMMENT ON MACRO wilson_low IS 'lower end of the 95 % Wilson interval of k out of n';
COMMENT ON MACRO wilson_high IS 'upper end of the 95 % Wilson interval of k out of n';

-- A percentile, or NULL where what is awaited could make it more than a quarter longer.
CREATE OR REPLACE MACRO usms_if_sure(seconds, longest) AS
CASE WHEN longest <= 1.25 * seconds THEN seconds END;

CREATE OR REPLACE MACRO delivery_figures(r) AS list_transform(
    [{
        messages: count(*) FILTER (r.is_announced),
        delivered: count(*) FILTER (r.is_announced AND r.status = 'delivered'),
        failed: count(*) FILTER (r.is_announced AND r.status = 'failed'),
        rejected: count(*) FILTER (r.is_announced AND r.status = 'rejected'),
        expired: count(*) FILTER (r.is_announced AND r.status = 'expired'),
        unknown: count(*) FILTER (r.is_announced AND r.status = 'unknown'),
        pending: count(*) FILTER (r.is_announced AND r.status = 'pending'),
        unrecognized: count(*) FILTER (r.is_announced AND r.status = 'unrecognized'),
        invalid: count(*) FILTER (r.is_announced AND r.status = 'invalid'),
        awaited: count(*) FILTER (r.is_announced AND NOT r.is_final AND NOT r.is_closed),
        with_evidence: count(*) FILTER (r.is_announced AND r.is_final),
        first_asked_too_late: count(*) FILTER (
            r.is_announced
            AND NOT r.is_final
            AND r.status <> 'invalid'
            AND r.first_asked_at > r.sent_at + usms_cutoff()
        ),
        -- A report that is dated before its sending says nothing of how long it took.
        latencies: quantile_cont(r.delivery_seconds, [0.5, 0.9, 0.99]) FILTER (
            r.is_announced AND r.status = 'delivered' AND r.delivery_seconds >= 0
        ),
        -- The same, should all that are awaited still arrive, and never end.
        longest: quantile_cont(
            coalesce(r.delivery_seconds, 'infinity'::DOUBLE), [0.5, 0.9, 0.99]
        ) FILTER (
            r.is_announced
            AND (
                (r.status = 'delivered' AND r.delivery_seconds >= 0)
                OR (NOT r.is_final AND NOT r.is_closed)
            )
        )
    }],
    lambda c: {
        messages: c.messages,
        delivered: c.delivered,
        failed: c.failed,
        rejected: c.rejected,
        expired: c.expired,
        unknown: c.unknown,
        pending: c.pending,
        unrecognized: c.unrecognized,
        invalid: c.invalid,
        awaited: c.awaited,
        awaited_rate: c.awaited / nullif(c.messages, 0),
        receipt_coverage: c.with_evidence / nullif(c.messages, 0),
        delivery_rate: c.delivered / nullif(c.with_evidence, 0),
        -- Of a young group it would be sure of what will not stay: failures come later.
        delivery_rate_ci_low:
            CASE WHEN c.awaited = 0 THEN wilson_low(c.delivered, c.with_evidence) END,
        delivery_rate_ci_high:
            CASE WHEN c.awaited = 0 THEN wilson_high(c.delivered, c.with_evidence) END,
        delivery_rate_if_rest_failed: c.delivered / nullif(c.messages, 0),
        -- Not 1 - x / y: that can round to less than delivery_rate.
        delivery_rate_if_rest_arrived:
            (c.messages - c.failed - c.rejected - c.expired) / nullif(c.messages, 0),
        latency_p50_seconds: usms_if_sure(c.latencies[1], c.longest[1]),
        latency_p90_seconds: usms_if_sure(c.latencies[2], c.longest[2]),
        latency_p99_seconds: usms_if_sure(c.latencies[3], c.longest[3]),
        first_asked_too_late: c.first_asked_too_late
    }
)[1];

COMMENT ON MACRO delivery_figures IS
'all delivery figures of a group of receipts as one STRUCT; only recipients in your table count';

-- usms_newest_day(): the first local day of sending that may not be over: all before it are. It is
-- the newest that anything usable was sent on; where nothing was sent since, by when was last
-- asked, and in the zone where days end last. A row that is unusable may be dated anywhere.
CREATE OR REPLACE MACRO usms_newest_day() AS (
    SELECT
        coalesce(
            greatest(
                max(sent_date) FILTER (status <> 'invalid'),
                ((max(last_asked_at) AT TIME ZONE 'UTC') - INTERVAL 12 HOUR)::DATE
            ),
            max(sent_date)
        )
    FROM receipts
);

-- `receipts`, an operator named with its country, for operators of two countries can share a name.
-- What groups by a column that you name reads this. Grain: as `receipts`.
CREATE OR REPLACE MACRO usms_named() AS TABLE
SELECT * REPLACE ("operator" || coalesce(' (' || country || ')', '') AS "operator")
FROM receipts;
