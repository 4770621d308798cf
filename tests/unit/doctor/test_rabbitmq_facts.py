"""What RabbitMQ says in a refusal."""

import pytest

from orderkeep.messaging.rabbitmq.facts import (
    ArgumentValue,
    differing_argument,
    refused_kind,
)

PREFIX = "406 PRECONDITION_FAILED - inequivalent arg "


@pytest.mark.parametrize(
    ("text", "name", "theirs"),
    [
        (
            (
                "'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value"
                " '1000' of type 'signedint'"
            ),
            "x-message-ttl",
            1000,
        ),
        (
            "'x-delivery-limit' for queue 'q' in vhost '/': received '10000' but current is '20'",
            "x-delivery-limit",
            20,
        ),
        (
            (
                "'x-queue-type' for queue 'q' in vhost '/': received the value 'quorum' of type"
                " 'longstr' but current is none"
            ),
            "x-queue-type",
            None,
        ),
        (
            (
                "'x-dead-letter-exchange' for queue 'a, received: b' in vhost 'x: y': received none"
                " but current is the value '' of type 'longstr'"
            ),
            "x-dead-letter-exchange",
            "",
        ),
        (
            (
                "'x-single-active-consumer' for queue 'q' in vhost '/': received none but current"
                " is the value 'true' of type 'bool'"
            ),
            "x-single-active-consumer",
            True,
        ),
        (
            "'durable' for queue 'q' in vhost '/': received 'true' but current is 'false'",
            "durable",
            "false",
        ),
        (
            (
                "'type' for exchange 'e' in vhost '/': received 'direct' but current is"
                " ''x-delayed-message''"
            ),
            "type",
            "x-delayed-message",
        ),
    ],
)
def test_a_difference_is_read(text: str, name: str, theirs: ArgumentValue) -> None:
    read = differing_argument(PREFIX + text, ours={"x-delivery-limit": 10_000})

    assert read == (name, theirs)
    assert type(read[1]) is type(theirs)


@pytest.mark.parametrize(
    "text",
    ["406 PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q'", "", "something else"],
)
def test_other_words_are_no_difference(text: str) -> None:
    assert differing_argument(text, ours={}) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("403 ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'", "queue"),
        ("403 ACCESS_REFUSED - read access to exchange 'e' in vhost '/' refused", "exchange"),
        ("404 NOT_FOUND - no queue 'q' in vhost '/'", None),
    ],
)
def test_what_is_refused_is_read(text: str, kind: str | None) -> None:
    assert refused_kind(text) == kind
