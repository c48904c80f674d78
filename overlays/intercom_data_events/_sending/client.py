"""The common base of the blocking and the async client: settings, a session, and views."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar, cast

from intercom_data_events._sending.engines.kinds import is_kind
from intercom_data_events._sending.secret import hold
from intercom_data_events._sending.session import Session
from intercom_data_events._sending.settings import (
    AsyncAccessToken,
    Region,
    Settings,
    Timeout,
    region_of,
    resolve_address,
    resolve_enabled,
    resolve_token,
    resolve_version,
)
from intercom_data_events._validation import invalid
from intercom_data_events.clock import Clock
from intercom_data_events.errors import ConfigurationError

if TYPE_CHECKING:
    from intercom_data_events._sending.engines import AsyncEngine, Engine
    from intercom_data_events._sending.rate_limit import RateLimit
    from intercom_data_events_api.models import IntercomVersion

E = TypeVar("E", bound="Engine | AsyncEngine")
#: The http_client and the transport that a caller may pass.
C = TypeVar("C")
Tr = TypeVar("Tr")
Tok = TypeVar("Tok", bound=AsyncAccessToken)


class BaseClient(Generic[E, C, Tr, Tok]):
    """Settings and a session; a view has other settings on the same session."""

    _is_async: ClassVar[bool]

    def __init__(
        self,
        access_token: Tok | None = None,
        *,
        version: IntercomVersion | str | None = None,
        region: Region | None = None,
        base_url: str | None = None,
        timeout: Timeout = None,
        deadline: float = 120,
        max_retries: int = 4,
        pace: bool = True,
        quota_share: float = 1.0,
        headers: Mapping[str, str] | None = None,
        enabled: bool | None = None,
        transport: Tr | None = None,
        http_client: C | None = None,
        clock: Clock | None = None,
        allow_http: bool | None = None,
    ) -> None:
        # First, so that no frame of a traceback has either of them, whatever fails.
        token, access_token, held, headers = hold(access_token), None, hold(headers), None
        _show_log()
        self._settings = Settings(
            base_url=resolve_address(base_url, region, allow_http),
            version=resolve_version(version),
            timeout=30 if timeout is None and http_client is None else timeout,
            deadline=deadline,
            max_retries=max_retries,
            pace=pace,
            quota_share=quota_share,
            headers=held,
        )
        if transport is not None and http_client is not None:
            raise ConfigurationError("pass either transport or http_client, not both")
        kind = "Async" if self._is_async else ""
        _check_kind("transport", transport, f"{kind}BaseTransport")
        _check_kind("http_client", http_client, f"{kind}Client")
        if clock is not None and not isinstance(clock, Clock):
            module = Clock.__module__.partition(".")[0]
            raise invalid(ConfigurationError, f"clock must be an {module}.Clock", clock)
        on = resolve_enabled(enabled)
        self._session: Session[E] = Session(
            resolve_token(token) if on else None,
            is_async=self._is_async,
            enabled=on,
            transport=transport,
            http_client=http_client,
            clock=clock,
        )
        self._is_view = False

    def with_options(
        self,
        *,
        version: IntercomVersion | str | None = None,
        timeout: Timeout = None,
        deadline: float | None = None,
        max_retries: int | None = None,
        pace: bool | None = None,
        quota_share: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Self:
        """Returns a view of this client: other options, the same connections.

        Options that are left out or None stay as they are. Closing a view does nothing, because the
        connections belong to the client.

        Args:
            version: The API version.
            timeout: Seconds that one attempt may take.
            deadline: Seconds that a request may take in all, retries and waits included.
            max_retries: How often a failed request is repeated.
            pace: Whether requests wait while the rate limit leaves no room for them.
            quota_share: The largest part of the app's quota to use, greater than 0 and at most 1.
                All requests of the client count, so a view with a smaller share has to wait first.
            headers: Additional headers; they replace the client's headers of the same names.

        Raises:
            ConfigurationError: An option cannot be used.

        Example:
            >>> from intercom_data_events import DataEventsClient
            >>> from intercom_data_events.emulator import Emulator
            >>> client = DataEventsClient("token", transport=Emulator().transport())
            >>> client.with_options(timeout=5, max_retries=0).create("ran", user_id="314159")
        """
        held, headers = hold(headers), None
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._settings = self._settings.changed(
            version=version,
            timeout=timeout,
            deadline=deadline,
            max_retries=max_retries,
            pace=pace,
            quota_share=quota_share,
            headers=held,
        )
        view._is_view = True
        return view

    @property
    def base_url(self) -> str:
        """The address of the API, without a slash at the end."""
        return self._settings.base_url

    @property
    def region(self) -> Region | None:
        """The region of `base_url`: "us", "eu" or "au", or None if it is not Intercom's."""
        return region_of(self.base_url)

    @property
    def version(self) -> str:
        """The API version of every request."""
        return self._settings.version

    @property
    def timeout(self) -> Timeout:
        """The time limit of an attempt in seconds, or an ``httpx.Timeout``.

        None means that your own `http_client` decides.
        """
        return self._settings.timeout

    @property
    def deadline(self) -> float:
        """Seconds that a request may take in all; ``math.inf`` means no deadline."""
        return self._settings.deadline

    @property
    def max_retries(self) -> int:
        """How often a failed request is repeated."""
        return self._settings.max_retries

    @property
    def enabled(self) -> bool:
        """Whether the client sends anything."""
        return self._session.enabled

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed. A view is closed when its client is."""
        return self._session.closed

    @property
    def rate_limit(self) -> RateLimit | None:
        """The app's rate limit as of the latest answer, or None before the first answer."""
        return self._session.rate_limit

    def __repr__(self) -> str:
        """Shows where and how it sends, and whether it does, but neither token nor headers."""
        if not hasattr(self, "_is_view"):
            return f"{type(self).__name__}(…)"  # In a traceback of a failed constructor.
        shown = {**vars(self._settings), "enabled": self.enabled, "is_closed": self.is_closed}
        del shown["headers"]
        fields = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({fields})"

    def __copy__(self) -> Self:
        """Returns a view: a copy shares the connections and the token."""
        return self.with_options()

    def __deepcopy__(self, memo: object) -> Self:
        """Returns a view: a copy shares the connections and the token."""
        return self.with_options()

    def __getstate__(self) -> dict[str, object]:
        """Returns what a pickle contains: the settings, but not the token."""
        if self._session.given:
            raise TypeError(
                "a client with a transport, http_client or clock cannot be pickled; create one in "
                "each process"
            )
        return {"settings": self._settings, "enabled": self._session.enabled}

    def __setstate__(self, state: dict[str, object]) -> None:
        """Unpickles a client, with the token from the environment."""
        _show_log()
        enabled = bool(state["enabled"])
        self._settings = cast("Settings", state["settings"])
        token = resolve_token(None) if enabled else None
        self._session = Session(token, is_async=self._is_async, enabled=enabled)
        self._is_view = False


def _show_log() -> None:
    """Shows the log on stderr, if INTERCOM_LOG says so."""
    if os.environ.get("INTERCOM_LOG"):
        from intercom_data_events._sending.logs import show_log  # Few programs need it.

        show_log()


def _check_kind(name: str, given: object, kind: str) -> None:
    if given is not None and not is_kind(given, kind):
        must = f"{name} must be an httpx.{kind} or httpx2.{kind}"
        raise invalid(ConfigurationError, must, given)


def parts_of(client: BaseClient[E, Any, Any, Any]) -> tuple[Session[E], Settings]:
    """Returns a client's session and settings, for modules that send on its behalf."""
    return client._session, client._settings  # noqa: SLF001  # attributes of BaseClient, above
