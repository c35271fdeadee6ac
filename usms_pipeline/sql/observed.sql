-- Every observation, which is what one answer said, as what is known by that answer alone.
-- Grain: (session_no, number, answer). One that says neither is what stays of somebody forgotten:
-- that the session was asked about.
SELECT
    session_no,
    number,
    phone,
    country,
    "operator",
    number_type,
    CASE WHEN is_final THEN said END AS final,
    CASE WHEN NOT is_final THEN said END AS "open",
    CASE WHEN is_final THEN [status] ELSE [] END AS finals_seen,
    asked_at AS first_asked_at,
    asked_at AS last_asked_at,
    session_submit_status
FROM (
    SELECT
        *,
        {
            'asked_at': asked_at,
            'received_at': received_at,
            'rank': rank,
            'code': code,
            'word': word,
            'status': status,
            'description': description,
            'submit_status': submit_status,
            'segments': segments
        } AS said
    FROM observations
)
