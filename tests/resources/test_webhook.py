"""Messages to a webhook: their form, what a refusal says, and that the address stays secret."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from webhook_server import SECRET, WebhookServer

from resources.webhook import WebhookError, plain, send


@pytest.fixture
def webhook() -> Iterator[WebhookServer]:
    with WebhookServer().running() as running:
        yield running


def test_a_message(webhook: WebhookServer) -> None:
    send(SecretStr(webhook.url), "qa: 1 <failed>", ["*Failed*", "why"])
    assert webhook.told == [
        {
            "text": "qa: 1 &lt;failed&gt;",
            "blocks": [
                {"type": "section", "text": {"type": "mrkdwn", "text": "*Failed*"}},
                {"type": "section", "text": {"type": "mrkdwn", "text": "why"}},
            ],
        }
    ]


def test_nobody_is_called_by_what_comes_from_elsewhere() -> None:
    assert plain("<!channel> a & <http://x|y>") == "&lt;!channel&gt; a &amp; &lt;http://x|y&gt;"


def test_what_is_too_long_is_cut(webhook: WebhookServer) -> None:
    send(SecretStr(webhook.url), "t" * 5000, ["x" * 5000] * 60)
    (message,) = webhook.told
    assert len(message["text"]) == 3000
    assert len(message["blocks"]) == 45
    assert message["blocks"][0]["text"]["text"] == "x" * 2999 + "…"


@pytest.mark.parametrize(
    ("status", "headers", "pause"),
    [
        (500, {}, 0.0),
        (404, {}, 0.0),
        (429, {"Retry-After": "30"}, 30.0),
        (302, {"Location": "http://127.0.0.1:9/"}, 0.0),
    ],
)
def test_a_refusal(
    webhook: WebhookServer, status: int, headers: dict[str, str], pause: float
) -> None:
    webhook.answers = [(status, headers)]
    with pytest.raises(WebhookError, match=f"the webhook answers {status}") as caught:
        send(SecretStr(webhook.url), "t", ["s"])
    assert caught.value.retry_after == pause
    assert SECRET not in str(caught.value)


def test_nobody_is_there() -> None:
    url = SecretStr(f"http://127.0.0.1:9/services/{SECRET}")
    with pytest.raises(WebhookError, match="the webhook is not reached: ConnectionError") as caught:
        send(url, "t", ["s"])
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__
