"""HTTP as connectors need it: patient, at the API's pace, numbers kept as they are spelled, secrets kept.

Every secret is named in the YAML and looked up by ``include.secrets.given``; none is in an error, a log or a label.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import time
from typing import Annotated, Any, Literal
from urllib.parse import quote, quote_plus, urlsplit

import pyarrow as pa
import requests
from pydantic import Field, model_validator
from requests import PreparedRequest, Response
from requests.auth import AuthBase
from requests.exceptions import (
    ChunkedEncodingError,
    ConnectionError,
    ContentDecodingError,
    RequestException,
    SSLError,
    Timeout,
    TooManyRedirects,
)
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry as RetryAfter

from include.ingest.connectors.base import Options, SourceError
from include.ingest.pseudonym import mask_emails
from include.secrets import given

SecretName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="The name of a secret, not the secret.")]
Url = Annotated[str, Field(pattern=r"^https?://[^/?#@\s]+(/[^?#\s]*)?$", description="http(s), no user, no query.")]

AGAIN = {408, 425, 429}
"""What a client may send again, beside every 5xx."""
N_BODY = 200


class Number(str):
    """A number as JSON spells it: 400 digits and 0.10 survive."""


class Bearer(Options):
    type: Literal["bearer"]
    secret: SecretName


class ApiKey(Options):
    type: Literal["api_key"]
    name: str = Field("X-Api-Key", description="Name of the header or of the query parameter.")
    location: Literal["header", "query"] = Field("header", alias="in")
    secret: SecretName


class Basic(Options):
    type: Literal["basic"]
    user: str
    secret: SecretName


class OAuth2(Options):
    """Client credentials."""

    type: Literal["oauth2"]
    token_url: Url
    client_id: str
    secret: SecretName
    scope: str | None = None


Auth = Annotated[Bearer | ApiKey | Basic | OAuth2, Field(discriminator="type")]


class Retry(Options):
    """Attempts wait a random time, the window doubling from ``first_seconds`` up to ``max_seconds``."""

    max_attempts: int = Field(6, ge=1)
    first_seconds: float = Field(1, ge=0)
    max_seconds: float = Field(60, ge=0)
    max_wait_seconds: float = Field(600, ge=0, description="The longest Retry-After that is waited for.")


class HttpConnection(Options):
    """Where an API is and how it is spoken to."""

    base_url: Url | None = None
    base_url_secret: SecretName | None = Field(None, description="The address itself is a secret, or differs by place.")
    auth: Auth | None = None
    headers: dict[str, str] = {}
    requests_per_second: float | None = Field(None, gt=0)
    timeout_seconds: float = Field(60, gt=0, description="For the connection, and for every piece of an answer.")
    retry: Retry = Retry()

    @model_validator(mode="after")
    def _has_address(self) -> HttpConnection:
        if bool(self.base_url) == bool(self.base_url_secret):
            raise ValueError("say one of `base_url` and `base_url_secret`")
        return self


class Unreachable(SourceError):
    """The API gave no usable answer, however often it was asked."""


class Refused(SourceError):
    """The API understood and says no."""


class _TryAgain(Exception):
    def __init__(self, reason: str, response: Response | None = None) -> None:
        super().__init__(reason)
        self.after: float | None = None
        if response is not None and (text := response.headers.get("Retry-After")):
            with contextlib.suppress(InvalidHeader):
                self.after = RetryAfter().parse_retry_after(text)


class HttpSession(requests.Session):
    """A session with one API. ``Response.json()`` gives objects and lists with every number a ``Number``.

    ``SourceError`` for what trying again does not mend; ``Unreachable`` when trying again did not help either.
    """

    def __init__(self, who: str, connection: HttpConnection) -> None:
        super().__init__()
        self.who = who
        self.connection = connection
        self.secrets: list[str] = []
        self.oauth: Any = None
        self.base_url = self._base_url()
        self.token_url = connection.auth.token_url if isinstance(connection.auth, OAuth2) else None
        self.next_at = 0.0
        self.redact = _Redact(self)
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self.redact)

    def close(self) -> None:
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self.redact)
        super().close()

    def _secret(self, name: str) -> str:
        try:
            return given(name)
        except ValueError as error:
            raise SourceError(f"{self.who}: {error}") from None

    def _base_url(self) -> str:
        if self.connection.base_url:
            return self.connection.base_url
        url = self._secret(self.connection.base_url_secret or "").strip()
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise SourceError(
                f"{self.who}: the secret {self.connection.base_url_secret} is no address such as https://host/path."
            )
        if parts.password:
            self.secrets.append(parts.password)
        return url

    def authentication(self) -> AuthBase | None:
        """dlt's authentication with the secrets that the YAML names. ``SourceError`` says which is missing."""
        how = self.connection.auth
        if how is None:
            return None
        # dlt reports its use unless told not to, before it is imported.
        os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
        from dlt.sources.helpers.rest_client import auth

        secret = self._secret(how.secret)
        self.secrets.append(secret)
        if isinstance(how, Bearer):
            return auth.BearerTokenAuth(token=secret)
        if isinstance(how, ApiKey):
            return auth.APIKeyAuth(name=how.name, api_key=secret, location=how.location)
        if isinstance(how, Basic):
            return auth.HttpBasicAuth(username=how.user, password=secret)
        asked = {"scope": how.scope} if how.scope else {}
        self.oauth = auth.OAuth2ClientCredentials(
            access_token_url=how.token_url,
            client_id=how.client_id,
            client_secret=secret,
            access_token_request_data=asked,
            session=self,
        )
        return self.oauth

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        """The answer of the API, whole and parsed."""
        kwargs["timeout"] = kwargs.get("timeout") or self.connection.timeout_seconds
        if not kwargs.get("allow_redirects", True):
            # A redirect on its way: whoever sent the first request tries again.
            self._pace()
            return super().send(request, **kwargs)
        where = self._place(request)
        how = self.connection.retry
        trying = Retrying(
            stop=stop_after_attempt(how.max_attempts), wait=self._wait, retry=retry_if_exception_type(_TryAgain),
            reraise=True,
        )  # fmt: skip
        try:
            return trying(self._once, request, where, kwargs)
        except _TryAgain as error:
            raise Unreachable(f"{self.who}: {where} {error} ({how.max_attempts} attempts).") from None

    def _once(self, request: PreparedRequest, where: str, kwargs: dict[str, Any]) -> Response:
        self._pace()
        try:
            response = super().send(request, **kwargs)
        except SSLError as error:
            raise SourceError(f"{self.who}: {where} has no certificate that we trust: {self._reason(error)}") from None
        except Timeout:
            raise _TryAgain(f"is silent for {self.connection.timeout_seconds:g} s") from None
        except (ChunkedEncodingError, ContentDecodingError):
            raise _TryAgain("sends answers that are cut off") from None
        except ConnectionError as error:
            raise _TryAgain(f"cannot be reached: {self._reason(error)}") from None
        except TooManyRedirects:
            raise SourceError(f"{self.who}: {where} redirects without end.") from None
        except RequestException as error:
            raise SourceError(f"{self.who}: {where} cannot be asked: {self._reason(error)}") from None
        self._check_status(response, where)
        try:
            # What is not UTF-8 stays visible as surrogates, for the record that holds it to be set aside.
            text = response.content.decode("utf-8", errors="surrogateescape")
            payload = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=Number)
        except (ValueError, RecursionError):
            raise _TryAgain("sends answers that are cut off, or no JSON") from None
        if not isinstance(payload, dict | list):
            raise SourceError(f"{self.who}: {where} answers neither a JSON object nor a list.")
        response.json = lambda **_: payload  # type: ignore[method-assign]
        return response

    def _check_status(self, response: Response, where: str) -> None:
        status = response.status_code
        if status in AGAIN or status >= 500:
            trying = _TryAgain(f"answers {status}", response)
            if (trying.after or 0) > self.connection.retry.max_wait_seconds:
                raise Unreachable(f"{self.who}: {where} answers {status} and wants {trying.after:.0f} s of silence.")
            raise trying
        if status in (401, 403):
            named = self.connection.auth
            hint = f"check the secret {named.secret}" if named else "it wants `auth` in the YAML"
            raise SourceError(f"{self.who}: {where} answers {status}: {hint}.")
        if status >= 300:
            # Of persons an answer may speak too.
            said = mask_emails(pa.array([self.redacted(response.text)]))[0].as_py()
            said = " ".join(said.split())[:N_BODY]
            raise Refused(f"{self.who}: {where} answers {status}: {said or 'nothing more'}")

    def _wait(self, state: RetryCallState) -> float:
        how = self.connection.retry
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _TryAgain) and error.after is not None:
            # Not all at the same moment.
            return error.after + random.uniform(0, how.first_seconds)  # noqa: S311
        return wait_random_exponential(multiplier=how.first_seconds, max=how.max_seconds)(state)

    def _pace(self) -> None:
        if self.connection.requests_per_second:
            now = time.monotonic()
            time.sleep(max(0.0, self.next_at - now))
            self.next_at = max(now, self.next_at) + 1 / self.connection.requests_per_second

    def _place(self, request: PreparedRequest) -> str:
        """Host and path of a request; ``SourceError`` where it would carry the secret to somebody else."""
        url = request.url or ""
        parts = urlsplit(url)
        if url != self.token_url and _origin(url) != _origin(self.base_url):
            raise SourceError(
                f"{self.who}: the API sends us on to {parts.scheme}://{parts.hostname}, which is not "
                f"{'://'.join(map(str, _origin(self.base_url)[:2]))} of the connection: it would be handed the secret."
            )
        return self.redacted(f"{parts.scheme}://{parts.hostname}{parts.path}")

    def rebuild_auth(self, prepared_request: PreparedRequest, response: Response) -> None:
        """A redirect to another host carries no secret; requests itself knows of the Authorization header only."""
        if not self.should_strip_auth(response.request.url or "", prepared_request.url or ""):
            return
        if prepared_request.body:
            raise SourceError(f"{self.who}: the API redirects what we post to another host.")
        prepared_request.headers.pop("Authorization", None)
        if isinstance(self.connection.auth, ApiKey):
            prepared_request.headers.pop(self.connection.auth.name, None)

    def redacted(self, text: str) -> str:
        """``text`` without any secret of ours, plain or as a URL or a form spells it."""
        secrets = filter(None, [*self.secrets, getattr(self.oauth, "access_token", None)])
        forms = {form for one in secrets for form in (one, quote(one), quote(one, ""), quote_plus(one))}
        for secret in sorted(forms, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _reason(self, error: BaseException) -> str:
        inner = error.args[0] if error.args else error
        text = str(getattr(inner, "reason", None) or type(error).__name__)
        return self.redacted(text.rsplit(": ", 1)[-1])


LOGGERS = ("urllib3.connectionpool", "dlt")
"""They write whole URLs when somebody turns debugging on."""


class _Redact(logging.Filter):
    def __init__(self, session: HttpSession) -> None:
        super().__init__()
        self.session = session

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.session.redacted(record.getMessage()), ()
        return True


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
