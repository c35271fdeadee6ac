-- Grain: one macro of the warehouse, with the number of rows that it returns.
-- depends_on: {{ source('usms', 'receipts') }}
SELECT 'as_of' AS macro, count(*) AS n FROM as_of(now())
UNION ALL SELECT 'cost_by', count(*) FROM cost_by('country')
UNION ALL SELECT 'delivery_curve', count(*) FROM delivery_curve()
UNION ALL SELECT 'delivery_curve_by', count(*) FROM delivery_curve_by('country')
UNION ALL SELECT 'delivery_nowcast_by', count(*) FROM delivery_nowcast_by('country')
UNION ALL SELECT 'delivery_rate_by', count(*) FROM delivery_rate_by('country')
UNION ALL SELECT 'delivery_rate_change_by', count(*) FROM delivery_rate_change_by('country')
UNION ALL SELECT 'failures_by', count(*) FROM failures_by('country')
UNION ALL SELECT 'maturity', count(*) FROM maturity()
UNION ALL
SELECT macro, count(*) FROM (
    SELECT country, c.cost, wilson_low(f.delivered, f.messages), wilson_high(f.delivered, f.messages)
    FROM (
        SELECT country, delivery_figures(r) AS f, cost_figures(r) AS c
        FROM receipts AS r GROUP BY country
    )
), (VALUES ('cost_figures'), ('delivery_figures'), ('wilson_low'), ('wilson_high')) AS used (macro)
GROUP BY macro
