"""Questions to a language model behind any endpoint that speaks OpenAI's chat protocol, with kept answers."""

from __future__ import annotations

import email.utils
import hashlib
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from training.checkpoint import read_json, write_json
from training.concepts.describing.dictionary import DescriberError
from training.errors import ConfigError, RunError

_PASSING = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT)
_MOST_ANSWER_BYTES = 2**20

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ChatOptions:
    """Which model is asked, where, and how patiently."""

    url: str = ""
    """Base URL of an OpenAI-compatible endpoint, for instance http://127.0.0.1:8000/v1. The key is
    read from the environment variable TRIMTAB_LLM_KEY."""
    model: str = ""
    """Name of the model."""
    timeout_s: float = 60.0
    """Seconds that one answer may take."""
    attempts: int = 4
    """How often a question is asked that timed out, met a full server, or got an answer of the wrong form."""
    longest_wait_s: float = 120.0
    """Seconds at most between two attempts, also if the server asks for more."""
    give_up_after: int = 3
    """After so many questions in a row without an answer the endpoint is asked no more."""

    def __post_init__(self) -> None:
        where = urlsplit(self.url)
        if not self.model or where.scheme not in ("http", "https") or not where.netloc:
            raise ConfigError(
                f"llm: url is {self.url!r} and model {self.model!r}, expected http(s)://HOST/PATH and a name"
            )
        if self.attempts < 1 or self.give_up_after < 1:
            raise ConfigError("llm: attempts and give_up_after must be at least 1")
        if not self.timeout_s > 0 or not self.longest_wait_s >= 0:
            raise ConfigError("llm: timeout_s must be above 0, longest_wait_s at least 0")


@dataclass
class Chat:
    """Asks, and keeps every answer of use in a folder, so that a run that stopped asks only the rest.

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
        """What read makes of the JSON object that the model answers with; it raises ValueError for nonsense.

        Raises:
            DescriberError: no answer, or none but nonsense.
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
        with suppress(RunError, KeyError, TypeError, ValueError):  # never asked, or kept by half
            return read(read_json(path)["answer"])
        if self._failures >= self.options.give_up_after:
            raise DescriberError(
                f"{self.options.url} is given up after {self._failures} failures in a row"
            )
        try:
            answer, read_answer = self._ask_patiently(body, read)
        except DescriberError:
            self._failures += 1
            raise
        self._failures = 0
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"model": self.options.model, "answer": answer})
        return read_answer

    def _path(self, body: dict[str, Any]) -> Path:
        digest = hashlib.sha256(
            json.dumps([self.options.url, body], sort_keys=True).encode()
        ).hexdigest()
        return self.folder / f"{digest[:32]}.json"

    def _ask_patiently(
        self, body: dict[str, Any], read: Callable[[dict[str, Any]], Answer]
    ) -> tuple[dict[str, Any], Answer]:
        fault = ""
        for attempt in range(self.options.attempts):
            wait_s = 0.0
            try:
                answer = _object(self._post(body))
                return answer, read(answer)
            except urllib.error.HTTPError as error:
                fault = f"{self.options.url} answered {error.code} {error.reason}"
                if error.code not in _PASSING and error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise DescriberError(fault) from error
                wait_s = _retry_after_s(error.headers.get("Retry-After"), self.clock())
            except (OSError, HTTPException) as error:  # timeouts and refused connections among them
                fault = f"{self.options.url}: {error}"
            except ValueError as error:
                fault = f"{self.options.model}: {error}"
            if attempt + 1 < self.options.attempts:
                self.sleep(min(max(wait_s, 2.0**attempt), self.options.longest_wait_s))
        raise DescriberError(f"{fault}, {self.options.attempts} times")

    def _post(self, body: dict[str, Any]) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(
            f"{self.options.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers
        )
        with urllib.request.urlopen(request, timeout=self.options.timeout_s) as answer:
            read: bytes = answer.read(_MOST_ANSWER_BYTES)
        return read


def _object(data: bytes) -> dict[str, Any]:
    """The JSON object in the text of a chat completion; raises ValueError where there is none."""
    try:
        text = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise ValueError(f"found {data[:80]!r}, expected a chat completion") from None
    if not isinstance(text, str):
        raise ValueError(f"found an answer of type {type(text).__name__}, expected a text")
    start, end = text.find("{"), text.rfind("}")  # models like to put fences or words around it
    try:
        answer: dict[str, Any] = json.loads(text[start : end + 1], parse_constant=_no_number)
    except ValueError:
        raise ValueError(f"found the answer {text[:80]!r}, expected a JSON object") from None
    return answer


def _no_number(text: str) -> float:
    raise ValueError(f"found {text}, expected a number")


def _retry_after_s(header: str | None, now: float) -> float:
    """Seconds or a date, as HTTP has it; 0 for neither."""
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
