-- Places one order as Orderkeep does, in one round trip and one transaction: every row that it
-- writes, with bodies and headers of the same length, and nothing around it. The stock, which
-- others wait for, is changed last.
--
-- Words between at signs are set by placing_limit.py: what an order of Orderkeep itself had there.
CREATE FUNCTION bench_place_order(
    buyer integer,
    request_number bigint,
    drawn bigint,
    first_sku_id text,
    second_sku_id text -- NULL is an order of one line
) RETURNS text LANGUAGE plpgsql AS $function$
DECLARE
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
    expires_us bigint := now_us + 1800000000;
    the_user_id text := 'buyer-' || buyer;
    -- As Orderkeep's: it rises with time, so that indexes grow at their end.
    the_order_no text := '01' || lpad((now_us / 1000)::text, 13, '0') || lpad(drawn::text, 13, '0');
    is_pair boolean := second_sku_id IS NOT NULL;
    first_title text;
    first_price_minor bigint;
    first_currency text;
    second_title text;
    second_price_minor bigint := 0;
    total_minor bigint;
    earlier_order_no text;
BEGIN
    INSERT INTO order_requests (user_id, kind, key, order_no, body_hash)
    VALUES (the_user_id, 'header', 'bench-' || request_number, the_order_no, '@body_hash@')
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT order_no INTO STRICT earlier_order_no FROM order_requests
        WHERE user_id = the_user_id AND kind = 'header' AND key = 'bench-' || request_number;
        RETURN earlier_order_no;
    END IF;

    SELECT title, unit_price_minor, currency
    INTO STRICT first_title, first_price_minor, first_currency
    FROM skus WHERE sku_id = first_sku_id AND is_active;
    IF is_pair THEN
        SELECT title, unit_price_minor INTO STRICT second_title, second_price_minor
        FROM skus WHERE sku_id = second_sku_id AND is_active;
    END IF;
    total_minor := first_price_minor + 2 * second_price_minor;

    INSERT INTO orders (
        order_no, user_id, status, version, event_seq, total_amount_minor, pay_amount_minor,
        currency, receiver_name, receiver_phone, receiver_address, created_at, expires_at
    )
    VALUES (
        the_order_no, the_user_id, 'pending_payment', 1, 2, total_minor, total_minor,
        first_currency, '@receiver_name@', '@receiver_phone@', '@receiver_address@', now_us,
        expires_us
    );
    IF is_pair THEN
        INSERT INTO order_lines (
            order_no, line_no, sku_id, title, unit_price_minor, quantity, subtotal_minor
        )
        VALUES
            (the_order_no, 1, first_sku_id, first_title, first_price_minor, 1, first_price_minor),
            (the_order_no, 2, second_sku_id, second_title, second_price_minor, 2,
             2 * second_price_minor);
    ELSE
        INSERT INTO order_lines (
            order_no, line_no, sku_id, title, unit_price_minor, quantity, subtotal_minor
        )
        VALUES (the_order_no, 1, first_sku_id, first_title, first_price_minor, 1, first_price_minor);
    END IF;
    INSERT INTO order_history (order_no, version, to_status, cause, actor, changed_at)
    VALUES (the_order_no, 1, 'pending_payment', 'buyer', the_user_id, now_us);
    IF is_pair THEN
        INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
        VALUES
            (first_sku_id, 'reserve', the_order_no, 1, now_us),
            (second_sku_id, 'reserve', the_order_no, 2, now_us);
    ELSE
        INSERT INTO stock_movements (sku_id, kind, cause, quantity, moved_at)
        VALUES (first_sku_id, 'reserve', the_order_no, 1, now_us);
    END IF;
    INSERT INTO order_outbox (
        message_id, partition, aggregate_id, sequence, type, route, body, headers, state, ordered,
        not_before, deliver_at, attempts, created_at
    )
    VALUES
        (gen_random_uuid()::text, drawn % 16, the_order_no, 1, '@check_type@', '@check_route@',
         '\x@check_body@', '\x@check_headers@', 'pending', false, now_us, expires_us, 0, now_us),
        (gen_random_uuid()::text, drawn % 16, the_order_no, 2, '@created_type@', '@created_route@',
         CASE WHEN is_pair THEN '\x@created_body_of_two@'::bytea ELSE '\x@created_body_of_one@' END,
         '\x@created_headers@', 'pending', true, now_us, NULL, 0, now_us);

    -- In the order of their ids, so that two orders never wait for each other. What is short is
    -- refused by the table itself.
    IF is_pair AND second_sku_id < first_sku_id THEN
        UPDATE stock SET available = available - 2, reserved = reserved + 2
        WHERE sku_id = second_sku_id;
    END IF;
    UPDATE stock SET available = available - 1, reserved = reserved + 1
    WHERE sku_id = first_sku_id;
    IF is_pair AND second_sku_id > first_sku_id THEN
        UPDATE stock SET available = available - 2, reserved = reserved + 2
        WHERE sku_id = second_sku_id;
    END IF;
    RETURN the_order_no;
END
$function$
