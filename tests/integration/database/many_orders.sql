-- 100,000 orders at version 0002, a quarter in each status. Every SKU has orders of one status only,
-- 1,000 of them. For SQLite and PostgreSQL alike.
CREATE TABLE made_orders AS
WITH RECURSIVE made(number) AS (
    SELECT 1 UNION ALL SELECT number + 1 FROM made WHERE number < 100000
)
SELECT
    number,
    '01' || CAST(10000000000 + number AS TEXT) AS order_no,
    'S' || CAST(number % 100 AS TEXT) AS sku_id,
    'u' || CAST(number % 977 AS TEXT) AS user_id,
    CASE number % 4
        WHEN 0 THEN 'paid' WHEN 1 THEN 'cancelled' WHEN 2 THEN 'closed' ELSE 'pending_payment'
    END AS status
FROM made;

INSERT INTO skus (sku_id, title, unit_price_minor, currency, is_active, updated_at)
SELECT sku_id, 'Mug', 1000, 'CNY', true, 1 FROM made_orders WHERE number <= 100;

INSERT INTO stock (sku_id, available, reserved, sold)
SELECT
    sku_id,
    CASE WHEN status IN ('paid', 'pending_payment') THEN 9000 ELSE 10000 END,
    CASE status WHEN 'pending_payment' THEN 1000 ELSE 0 END,
    CASE status WHEN 'paid' THEN 1000 ELSE 0 END
FROM made_orders WHERE number <= 100;

INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
SELECT sku_id, 'adjust', 'first', 10000, 1 FROM made_orders WHERE number <= 100;

INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
SELECT sku_id, 'reserve', order_no, 1, 2 FROM made_orders;

INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
SELECT sku_id, CASE status WHEN 'paid' THEN 'sell' ELSE 'release' END, order_no, 1, 3
FROM made_orders WHERE status != 'pending_payment';

INSERT INTO orders (
    order_no, user_id, status, version, event_seq, total_amount_minor, pay_amount_minor, currency,
    created_at, expires_at, paid_at, cancelled_at, closed_at, close_reason, pay_channel, trade_no
)
SELECT
    order_no, user_id, status, CASE status WHEN 'pending_payment' THEN 1 ELSE 2 END, 2, 1000, 1000,
    'CNY', 2, CASE status WHEN 'closed' THEN 3 ELSE 9000000000000000 END,
    CASE status WHEN 'paid' THEN 3 END, CASE status WHEN 'cancelled' THEN 3 END,
    CASE status WHEN 'closed' THEN 3 END,
    CASE status WHEN 'cancelled' THEN 'buyer' WHEN 'closed' THEN 'payment_timeout' END,
    CASE status WHEN 'paid' THEN 'bank' END, CASE status WHEN 'paid' THEN 'T' || order_no END
FROM made_orders;

INSERT INTO order_lines (
    order_no, line_no, sku_id, title, unit_price_minor, quantity, subtotal_minor
)
SELECT order_no, 1, sku_id, 'Mug', 1000, 1, 1000 FROM made_orders;

INSERT INTO order_history (order_no, version, to_status, cause, actor, changed_at)
SELECT order_no, 1, 'pending_payment', 'buyer', user_id, 2 FROM made_orders;

INSERT INTO order_history (order_no, version, from_status, to_status, cause, actor, changed_at)
SELECT
    order_no, 2, 'pending_payment', status,
    CASE status WHEN 'paid' THEN 'payment' WHEN 'closed' THEN 'payment_timeout' ELSE 'buyer' END,
    user_id, 3
FROM made_orders WHERE status != 'pending_payment';

INSERT INTO order_requests (user_id, kind, key, order_no, body_hash)
SELECT user_id, 'header', 'k' || order_no, order_no, 'h' FROM made_orders;

INSERT INTO order_payments (
    pay_channel, trade_no, order_no, amount_minor, currency, paid_at, received_at, outcome,
    message_id
)
SELECT 'bank', 'T' || order_no, order_no, 1000, 'CNY', 3, 3, 'accepted', 'm' || order_no
FROM made_orders WHERE status = 'paid';

DROP TABLE made_orders;
