"""What leaves for a `JsonAnswer`, byte for byte."""

import pytest

from orderkeep.contracts.json_answer import JsonAnswer


async def sent(answer: JsonAnswer, *, status_code: int = 201) -> list[dict]:
    messages: list[dict] = []

    async def send(message) -> None:
        messages.append(message)

    async def receive():
        raise AssertionError

    application = answer.to_asgi_response(None, None, status_code=status_code)
    await application({}, receive, send)  # type: ignore[arg-type]  # reason: it looks at none of it
    return messages


async def test_a_body_leaves_with_its_type_its_length_and_the_headers():
    start, body = await sent(JsonAnswer({"title": "\u8336"}, headers={"ETag": '"1"'}))

    assert start == {
        "type": "http.response.start",
        "status": 201,
        "headers": [
            (b"etag", b'"1"'),
            (b"content-type", b"application/json"),
            (b"content-length", b"15"),
        ],
    }
    assert body == {
        "type": "http.response.body",
        "body": b'{"title":"\xe8\x8c\xb6"}',
        "more_body": False,
    }


async def test_without_content_there_is_no_body_and_nothing_said_of_it():
    start, body = await sent(JsonAnswer(None, headers={"ETag": '"1"'}, status_code=304))

    assert start["status"] == 304
    assert start["headers"] == [(b"etag", b'"1"')]
    assert body["body"] == b""


async def test_a_header_that_is_no_ascii_is_a_mistake_of_ours():
    with pytest.raises(UnicodeEncodeError):
        await sent(JsonAnswer({}, headers={"Location": "/\u8336"}))
