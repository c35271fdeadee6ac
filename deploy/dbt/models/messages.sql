-- Grain: one message to one recipient.
SELECT
    session_no || '/' || recipient AS message_id,
    sent_date,
    country,
    "operator",
    is_final,
    coalesce(status = 'delivered', false) AS is_delivered
FROM {{ source('usms', 'receipts') }}
WHERE is_announced
