"""A client for language models that speak OpenAI's chat protocol; it keeps every answer on disk."""

from __future__ import annotations

import email.utils
import hashlib
import json
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx

from training.checkpoint import read_json, write_json
from training.concepts.describing.dictionary import DescriberError
from training.errors import ConfigError, RunError
from training.options import options

_TRANSIENT = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)
"""Statuses below 500 after which the same question is asked again."""
_MAX_ANSWER_BYTES = 2**20
"""Bytes of a response that are read; the rest is dropped, and the answer then refused as
malformed."""

Answer = TypeVar("Answer")


@options
class ChatOptions:
    """Configures the language model, its address, and the retries and waiting times."""

    url: str = ""
    """Base URL of an OpenAI-compatible endpoint, for instance http://127.0.0.1:8000/v1. The key is
    read from the environment variable TRIMTAB_LLM_KEY."""
    model: str = ""
    """Name of the model."""
    timeout_s: float = 60.0
    """Seconds that one answer may take."""
    attempts: int = 4
    """Times a question is asked after timeouts, a busy server, or answers of the wrong form."""
    longest_wait_s: float = 120.0
    """Seconds at most between two attempts, also if the server asks for more."""
    give_up_after: int = 3
    """Number of consecutive questions without an answer after which no more are asked."""

    def __post_init__(self) -> None:
        where = urlsplit(self.url)
        if not self.model or where.scheme not in ("http", "https") or not where.netloc:
            raise ConfigError(
                "llm: url and model: expected http(s)://HOST/PATH and a name, "
                f"found {self.url!r} and {self.model!r}"
            )
        if self.attempts < 1 or self.give_up_after < 1:
            raise ConfigError(
                "llm: attempts and give_up_after: expected at least 1, "
                f"found {self.attempts} and {self.give_up_after}"
            )
        if not self.timeout_s > 0 or not self.longest_wait_s >= 0:
            raise ConfigError(
                "llm: timeout_s and longest_wait_s: expected above 0 and at least 0, "
                f"found {self.timeout_s:g} and {self.longest_wait_s:g}"
            )


class _Read(NamedTuple, Generic[Answer]):
    """A model's answer as JSON, and the value that the caller read from it."""

    plain: dict[str, Any]
    value: Answer


@dataclass
class Chat:
    """Asks a model, and keeps each usable answer in a folder, so that a stopped run can resume.

    key goes into the Authorization header and nowhere else.
    """

    options: ChatOptions
    folder: Path
    key: str = ""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    _failures: int = field(default=0, init=False)

    def ask(
        self, instruction: str, question: str, read: Callable[[dict[str, Any]], Answer]
    ) -> Answer:
        """Asks the model, and returns the result of read for the JSON object in its answer.

        Args:
            instruction: the system message.
            question: the user's message.
            read: raises ValueError for an object that makes no sense.

        Raises:
            DescriberError: the model gave no answer, or none that made sense.
        """
        body = {
            "model": self.options.model,
            "temperature": 0,
            "messages": [
                {"role": "system", "content": instruction},
                {"role": "user", "content": question},
            ],
        }
        path = self._path(body)
        with suppress(RunError, KeyError, TypeError, ValueError):  # not asked yet, or half written
            return read(read_json(path)["answer"])
        if self._failures >= self.options.give_up_after:
            raise DescriberError(
                f"{self.options.url} is given up after {self._failures} failures in a row"
            )
        try:
            answer = self._ask_patiently(body, read)
        except DescriberError:
            self._failures += 1
            raise
        self._failures = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"model": self.options.model, "answer": answer.plain})
        return answer.value

    def _path(self, body: dict[str, Any]) -> Path:
        asked = json.dumps([self.options.url, body], sort_keys=True)
        digest = hashlib.sha256(asked.encode()).hexdigest()
        return self.folder / f"{digest[:32]}.json"

    def _ask_patiently(
        self, body: dict[str, Any], read: Callable[[dict[str, Any]], Answer]
    ) -> _Read[Answer]:
        fault = ""
        for attempt in range(self.options.attempts):
            wait_s = 0.0
            try:
                plain = _object(self._post(body))
                return _Read(plain, read(plain))
            except httpx.HTTPStatusError as error:
                status = error.response.status_code
                fault = f"{self.options.url} answered {status} {error.response.reason_phrase}"
                if status not in _TRANSIENT and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise DescriberError(fault) from error
                wait_s = _retry_after_s(error.response.headers.get("Retry-After"), self.clock())
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                fault = f"{self.options.url}: {error}"
            except ValueError as error:
                fault = f"{self.options.model}: {error}"
            if attempt + 1 < self.options.attempts:
                self.sleep(min(max(wait_s, 2.0**attempt), self.options.longest_wait_s))
        raise DescriberError(f"{fault}, {self.options.attempts} times")

    def _post(self, body: dict[str, Any]) -> bytes:
        """Sends a question and returns the response's body, up to the bound."""
        headers = {"Accept-Encoding": "identity"}  # so that the bound holds for what is received
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        read = b""
        with httpx.stream(
            "POST",
            f"{self.options.url.rstrip('/')}/chat/completions",
            json=body,
            headers=headers,
            timeout=self.options.timeout_s,
            verify=ssl.create_default_context(),  # the system's certificates, not certifi's
        ) as response:
            response.raise_for_status()
            for part in response.iter_raw():
                read += part
                if len(read) >= _MAX_ANSWER_BYTES:
                    break
        return read[:_MAX_ANSWER_BYTES]


def _object(data: bytes) -> dict[str, Any]:
    """Returns the JSON object in the text of a chat completion; raises ValueError without one."""
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f"response: expected a chat completion, found {data[:80]!r}") from None
    if not isinstance(text, str):
        raise ValueError(f"answer: expected a text, found {type(text).__name__}")
    # models often put fences or words around it
    start = text.find("{")
    end = text.rfind("}")
    try:
        answer: dict[str, Any] = json.loads(text[start : end + 1], parse_constant=_no_number)
    except ValueError:
        raise ValueError(f"answer: expected a JSON object, found {text[:80]!r}") from None
    return answer


def _no_number(text: str) -> float:
    raise ValueError(f"answer: expected a number, found {text}")


def _retry_after_s(header: str | None, now: float) -> float:
    """Reads a Retry-After header, seconds or a date, as seconds from now; 0 for neither."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - now)
    except ValueError:
        return 0.0
