-- What {order_count} ended orders leave, from number {first}: a third each paid, closed and
-- cancelled; one line each, two changes, two movements, and two sent events. Numbers rise with
-- time, and all of it is older than now. What consumers noted of the events is left out. It is one
-- statement, so that it needs no table of its own.
WITH made AS MATERIALIZED (
    SELECT
        number,
        '01' || lpad(({begun_ms} + number / 20)::text, 13, '0') || lpad(number::text, 13, '0')
            AS order_no,
        'MUG-' || lpad((number % 1000)::text, 4, '0') AS sku_id,
        'buyer-' || (number % {user_count}) AS user_id,
        (ARRAY['paid', 'closed', 'cancelled'])[number % 3 + 1] AS status,
        1000 * ({begun_ms} + number / 20) AS at
    FROM generate_series({first}::bigint, {first} + {order_count} - 1) AS number
), made_orders AS (
    INSERT INTO orders (
        order_no, user_id, status, version, event_seq, total_amount_minor, pay_amount_minor,
        currency, receiver_name, receiver_phone, receiver_address, created_at, expires_at, paid_at,
        cancelled_at, closed_at, close_reason, pay_channel, trade_no
    )
    SELECT
        order_no, user_id, status, 2, 2, 1990, 1990, 'CNY', 'Li Lei', '13800000000',
        '1 Long Street, Hangzhou', at, at + 1800000000,
        CASE status WHEN 'paid' THEN at END, CASE status WHEN 'cancelled' THEN at END,
        CASE status WHEN 'closed' THEN at + 1800000000 END,
        CASE status WHEN 'closed' THEN 'payment_timeout' WHEN 'cancelled' THEN 'buyer' END,
        CASE status WHEN 'paid' THEN 'bank' END, CASE status WHEN 'paid' THEN 'T' || order_no END
    FROM made
), made_lines AS (
    INSERT INTO order_lines (
        order_no, line_no, sku_id, title, unit_price_minor, quantity, subtotal_minor
    )
    SELECT order_no, 1, sku_id, 'Stoneware mug ' || sku_id, 1990, 1, 1990 FROM made
), made_history AS (
    INSERT INTO order_history (order_no, version, from_status, to_status, cause, actor, changed_at)
    SELECT order_no, 1, NULL, 'pending_payment', 'buyer', user_id, at FROM made
    UNION ALL
    SELECT
        order_no, 2, 'pending_payment', status,
        CASE status WHEN 'paid' THEN 'payment' WHEN 'closed' THEN 'payment_timeout'
            ELSE 'buyer' END,
        user_id, at
    FROM made
), made_requests AS (
    INSERT INTO order_requests (user_id, kind, key, order_no, body_hash)
    SELECT user_id, 'header', 'filled-' || number, order_no, md5(order_no) || md5(sku_id) FROM made
), made_movements AS (
    INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
    SELECT sku_id, 'reserve', order_no, 1, at FROM made
    UNION ALL
    SELECT sku_id, CASE status WHEN 'paid' THEN 'sell' ELSE 'release' END, order_no, 1, at FROM made
), made_payments AS (
    INSERT INTO order_payments (
        pay_channel, trade_no, order_no, amount_minor, currency, paid_at, received_at, outcome,
        message_id
    )
    SELECT 'bank', 'T' || order_no, order_no, 1990, 'CNY', at, at, 'accepted', 'm' || order_no
    FROM made WHERE status = 'paid'
), made_events AS (
    INSERT INTO order_outbox (
        message_id, partition, aggregate_id, sequence, type, route, body, headers, state, ordered,
        not_before, attempts, created_at, sent_at
    )
    SELECT
        gen_random_uuid()::text, number % 16, order_no, sequence,
        CASE sequence WHEN 1 THEN 'order.timeout.check' ELSE 'order.created' END,
        CASE sequence WHEN 1 THEN 'order.timeout.queue' ELSE 'order.events' END,
        decode(repeat('7b', CASE sequence WHEN 1 THEN 80 ELSE 400 END), 'hex'),
        decode(repeat('7b', 90), 'hex'), 'sent', sequence = 2, at, 0, at, {begun_ms}::bigint * 1000
    FROM made, generate_series(1, 2) AS sequence
)
SELECT count(*) AS filled_count FROM made
