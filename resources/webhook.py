"""Messages to a Slack-compatible webhook.

Belongs here: the form of a message, sending it once, and what a refusal means. Does not belong
here: when there is something to tell, and whether to try again.

The address is a secret: who knows it can write into the channel. It appears in no message of ours,
although the HTTP library puts it into its own.
"""

from __future__ import annotations

from typing import Any

import requests
from pydantic import SecretStr

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
_LONGEST_TEXT = 3000
"""Characters that Slack takes in one section."""

_MOST_SECTIONS = 45


class WebhookError(RuntimeError):
    """The message was not taken; :attr:`retry_after` is how long to wait at least, in seconds."""

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def plain(text: str) -> str:
    """Text in which nothing is a command of the channel: no link, no mention of everybody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def send(url: SecretStr, title: str, sections: list[str]) -> None:
    """Send one message.

    Args:
        url: address of the webhook.
        title: what a notification shows; plain text.
        sections: paragraphs in Slack's `mrkdwn`; what comes from elsewhere went through
            :func:`plain`.

    Raises:
        WebhookError: the webhook is not reached, or does not take the message.
    """
    blocks: list[dict[str, Any]] = [
        {"type": "section", "text": {"type": "mrkdwn", "text": shortened(text)}}
        for text in sections[:_MOST_SECTIONS]
    ]
    try:
        with requests.post(
            url.get_secret_value(),
            json={"text": shortened(plain(title)), "blocks": blocks},
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
            stream=True,  # what it answers is of no interest, however long
        ) as answer:
            status, pause = answer.status_code, answer.headers.get("Retry-After", "")
    except requests.RequestException as error:
        raise WebhookError(f"the webhook is not reached: {type(error).__name__}") from None
    if not 200 <= status < 300:
        raise WebhookError(
            f"the webhook answers {status}", float(pause) if pause.isdigit() else 0.0
        )


def shortened(text: str, longest: int = _LONGEST_TEXT) -> str:
    """At most so many characters of a text; an ellipsis stands for the rest."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
