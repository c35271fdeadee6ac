-- What messages cost, by the columns of your table that USMS_SEGMENTS_COLUMN, USMS_COST_COLUMN and
-- USMS_CURRENCY_COLUMN name. They come as texts; what is no number is counted, in without_cost.
-- Made at publishing: usms_segments(r), usms_cost(r), usms_currency(r), each a text or NULL.

CREATE OR REPLACE MACRO usms_amount(r) AS try_cast(usms_cost(r) AS DECIMAL(18, 6));

-- cost_figures(r): aggregate, of a group of one currency: amounts of two are never added up.
-- NULL where nothing of the group has a cost.
CREATE OR REPLACE MACRO cost_figures(r) AS {
    messages: count(*) FILTER (r.is_announced),
    -- Your table knows what was billed; the service's word is of what it thinks it sent.
    segments: sum(coalesce(try_cast(usms_segments(r) AS INTEGER), r.segments))
        FILTER (r.is_announced),
    cost: sum(usms_amount(r)) FILTER (r.is_announced),
    cost_undelivered: sum(usms_amount(r)) FILTER (
        r.is_announced AND r.status IN ('failed', 'rejected', 'expired')
    ),
    without_cost: count(*) FILTER (
        r.is_announced AND usms_amount(r) IS NULL
    )
};

COMMENT ON MACRO cost_figures IS
'segments and cost of a group of receipts of one currency, as one STRUCT';

-- Grain: one value of the column named, exactly so, and one currency.
CREATE OR REPLACE MACRO cost_by(column_name, first := NULL, last := NULL) AS TABLE
WITH cohorts AS (
    SELECT
        COLUMNS([usms_column(column_name)])::VARCHAR AS cohort,
        usms_currency(r) AS currency,
        cost_figures(r) AS figures
    FROM usms_named() AS r
    WHERE
        r.is_announced
        AND usms_is_between(r.sent_date, first, last)
    GROUP BY ALL
)
SELECT cohort, currency, unnest(figures)
FROM cohorts
ORDER BY figures.cost DESC NULLS LAST, figures.messages DESC, cohort, currency;

COMMENT ON MACRO TABLE cost_by IS 'segments and cost by any column, named exactly, and by currency';
