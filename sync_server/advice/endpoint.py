"""Asking an OpenAI-compatible endpoint for a text, and believing none of what comes back.

One POST to ``URL/chat/completions``: no redirect is followed (the key would travel along), the answer is bounded in
bytes and in time whatever it trickles, and a text is taken only when it is a few sentences of plain text. Everything
else is a failure with a reason, and the template is served instead.
"""

from __future__ import annotations

import json
import re
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import urllib3

from edge_runtime.errors import StellaError
from sync_server.advice.patterns import Pattern

# Part of what a text is kept under: raise it with every change of the prompt.
PROMPT = 1
MAX_ANSWER_BYTES = 64 * 1024
MAX_CHARACTERS = 1_500
LEAST_CHARACTERS = 20
MAX_RETRY_SECONDS = 3_600.0
_CHUNK = 8_192
_MARKUP = re.compile(r"<[A-Za-z/!?]|```|&#|&[a-z]+;")
_LINK = re.compile(r"://|\bwww\.|\]\(", re.IGNORECASE)
_SYSTEM = (
    "You advise technicians who look after a fleet of devices. An anomaly model found an incident; its facts follow as"
    " JSON. Write at most 120 words of plain text in three short paragraphs: what was seen, what it may mean, what to"
    " do first. No markup, no lists, no links, no names of people or products. band is how far from healthy it is:"
    " slight, clear or extreme. A part raises or lowers the anomaly score; that does not say whether its value is high"
    " or low, so do not claim either. context means how and where the device is used. Say nothing that the facts do not"
    " hold."
)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where texts are written.

    Attributes:
        url: The base address, such as ``https://host/v1``.
        model: What the endpoint calls its model.
        key_file: A file with the key in its first line, None where none is needed.
        seconds: Longest time of a call, first byte to last.
    """

    url: str
    model: str
    key_file: Path | None
    seconds: float

    @property
    def writer(self) -> str:
        """Who writes, and to which prompt."""
        return f"{self.model}/{PROMPT}"


class EndpointError(StellaError):
    """A call that brought no text; it never leaves this room.

    Args:
        reason: Why, one word for metrics and the table.
        retry_seconds: How long the endpoint asked us to wait, 0 when it did not.
    """

    def __init__(self, reason: str, retry_seconds: float = 0.0) -> None:
        super().__init__(f"The advice endpoint brought no text: {reason}.")
        self.reason = reason
        self.retry_seconds = retry_seconds


class _Message(msgspec.Struct):
    content: str


class _Choice(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    choices: list[_Choice]


def ask(endpoint: Endpoint, pattern: Pattern) -> str:
    """Have a text written.

    Args:
        endpoint: Where.
        pattern: For what; the only thing that is sent.

    Returns:
        Plain text of 20 to 1,500 characters.

    Raises:
        EndpointError: There is none, with the reason.
    """
    deadline = time.monotonic() + endpoint.seconds
    body = json.dumps(_request(endpoint, pattern), ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
    headers |= _authorization(endpoint)
    timeout = urllib3.Timeout(connect=endpoint.seconds, read=endpoint.seconds)
    try:
        with urllib3.PoolManager(num_pools=1, retries=False, timeout=timeout) as pool:
            response = pool.request(
                "POST", f"{endpoint.url.rstrip('/')}/chat/completions", body=body, headers=headers, redirect=False,
                preload_content=False, decode_content=False,
            )  # fmt: skip
            try:
                return _text(response, deadline)
            finally:
                response.close()
    except urllib3.exceptions.NewConnectionError as error:  # counts as a timeout in urllib3 2
        raise EndpointError("unreachable") from error
    except urllib3.exceptions.TimeoutError as error:
        raise EndpointError("timeout") from error
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise EndpointError("unreachable") from error


def _request(endpoint: Endpoint, pattern: Pattern) -> dict[str, Any]:
    facts = json.dumps(pattern.to_dict(), ensure_ascii=False)
    return {
        "model": endpoint.model,
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": facts}],
        "max_tokens": 400,
        "temperature": 0.2,
    }


def _authorization(endpoint: Endpoint) -> dict[str, str]:
    if endpoint.key_file is None:
        return {}
    try:
        with endpoint.key_file.open(encoding="ascii") as stream:
            key = stream.readline(4_096).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EndpointError("no_key") from error
    if not key.isprintable() or not key:
        raise EndpointError("no_key")
    return {"Authorization": f"Bearer {key}"}


def _text(response: urllib3.BaseHTTPResponse, deadline: float) -> str:
    if response.status == 429 or response.status >= 500:
        raise EndpointError(f"status_{response.status}", _retry_seconds(response.headers.get("Retry-After", "")))
    if response.status != 200:
        raise EndpointError(f"status_{response.status}")
    body = bytearray()
    # read1 returns what one packet brought: an endpoint that sends a byte now and then must meet the deadline, too.
    while chunk := response.read1(_CHUNK, decode_content=False):
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise EndpointError("too_large")
        if time.monotonic() > deadline:
            raise EndpointError("timeout")
    try:
        answer = msgspec.json.decode(bytes(body), type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise EndpointError("not_json") from error
    if not answer.choices:
        raise EndpointError("empty")
    return plain_text(answer.choices[0].message.content)


def plain_text(content: str) -> str:
    """Return what an endpoint wrote as plain text, white space tidied.

    Raises:
        EndpointError: It holds markup, links or control characters, or is too short or too long.
    """
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", content.replace("\r\n", "\n"))]
    text = "\n\n".join(part for part in paragraphs if part)
    if not LEAST_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        raise EndpointError("too_short" if len(text) < LEAST_CHARACTERS else "too_long")
    if _MARKUP.search(text):
        raise EndpointError("markup")
    if _LINK.search(text):
        raise EndpointError("link")
    # Cc and Cf: control characters, and those that turn the direction of writing or are invisible. Cs: halves.
    if any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co") for character in text if character != "\n"):
        raise EndpointError("control_characters")
    return text


def _retry_seconds(header: str) -> float:
    return min(float(header), MAX_RETRY_SECONDS) if header.isascii() and header.isdigit() and len(header) < 7 else 0.0
