"""Makes methods from operations, so that a verb's signature, docstring and checks exist once.

Each function here takes a function of :mod:`intercom_data_events._sending.operations` and returns a
method with the same docstring and, after `self`, the same parameters. Functions whose name begins
with `a` make methods that are awaited.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

from intercom_data_events._sending.operations import next_page

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events._sending.steps import Answer
    from intercom_data_events.pagination import AsyncEventList, EventList, Page
    from intercom_data_events.response import APIResponse

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])

if TYPE_CHECKING:

    class Performer(Protocol):
        """An object that performs operations with blocking calls."""

        def _perform(self, operation: Operation[T], /) -> Answer[T]: ...

    class AsyncPerformer(Protocol):
        """An object that performs operations asynchronously."""

        async def _perform(self, operation: Operation[T], /) -> Answer[T]: ...

    class Bound(Protocol[S_co]):
        """A contact, and the client that performs its operations."""

        @property
        def _client(self) -> S_co: ...
        @property
        def identity(self) -> object: ...


def verb(make: Callable[P, Operation[T]]) -> Callable[Concatenate[Performer, P], T]:
    """Makes a verb that returns the parsed answer."""

    def method(self: Performer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._perform(make(*args, **kwargs)).parsed

    return _as_method(method, make)


def averb(
    make: Callable[P, Operation[T]],
) -> Callable[Concatenate[AsyncPerformer, P], Coroutine[Any, Any, T]]:
    """The async counterpart of :func:`verb`."""

    async def method(self: AsyncPerformer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (await self._perform(make(*args, **kwargs))).parsed

    return _as_method(method, make)


def raw(make: Callable[P, Operation[T]]) -> Callable[Concatenate[Performer, P], APIResponse[T]]:
    """Makes a verb that returns the whole answer."""

    def method(self: Performer, /, *args: P.args, **kwargs: P.kwargs) -> APIResponse[T]:
        return self._perform(make(*args, **kwargs)).response()

    return _as_method(method, make, "APIResponse[{}]")


def araw(
    make: Callable[P, Operation[T]],
) -> Callable[Concatenate[AsyncPerformer, P], Coroutine[Any, Any, APIResponse[T]]]:
    """The async counterpart of :func:`raw`."""

    async def method(self: AsyncPerformer, /, *args: P.args, **kwargs: P.kwargs) -> APIResponse[T]:
        return (await self._perform(make(*args, **kwargs))).response()

    return _as_method(method, make, "APIResponse[{}]")


def bound(method: Callable[Concatenate[S, Any, P], R]) -> Callable[Concatenate[Bound[S], P], R]:
    """Makes a contact's verb from a client's verb that takes the contact's identity first."""

    def bound_method(self: Bound[S], /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(self._client, self.identity, *args, **kwargs)

    async def async_method(self: Bound[S], /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return await cast("Any", bound_method(self, *args, **kwargs))

    if inspect.iscoroutinefunction(method):
        return functools.update_wrapper(cast("Any", async_method), method)
    return functools.update_wrapper(bound_method, method)


def listing(make: Callable[P, Operation[Page]]) -> Callable[Concatenate[Performer, P], EventList]:
    """Makes a verb that iterates over all pages."""

    def method(self: Performer, /, *args: P.args, **kwargs: P.kwargs) -> EventList:
        from intercom_data_events.pagination import EventList

        return EventList(*_pages(self._perform, make(*args, **kwargs)), _limit(kwargs))

    return _as_method(method, make, "EventList")


def alisting(
    make: Callable[P, Operation[Page]],
) -> Callable[Concatenate[AsyncPerformer, P], AsyncEventList]:
    """The counterpart of :func:`listing` for ``async for``; it is not awaited itself."""

    def method(self: AsyncPerformer, /, *args: P.args, **kwargs: P.kwargs) -> AsyncEventList:
        from intercom_data_events.pagination import AsyncEventList

        return AsyncEventList(*_pages(self._perform, make(*args, **kwargs)), _limit(kwargs))

    return _as_method(method, make, "AsyncEventList")


def _pages(
    perform: Callable[[Operation[Page]], R], first: Operation[Page]
) -> tuple[Callable[[tuple[str | None, int | None]], R], str]:
    """Returns the parts of a listing: a function that gets a page, and the first query."""

    def fetch(wanted: tuple[str | None, int | None]) -> R:
        query, most = wanted
        return perform(first if query is None else next_page(query, most))

    return fetch, first.sent_query


def _limit(arguments: Mapping[str, Any]) -> int | None:
    """Returns the limit of a listing, which its operation has checked."""
    limit: int | None = arguments.get("limit")
    return limit


# Each function makes several methods.
_signature = functools.cache(inspect.signature)


def _as_method(method: F, make: Callable[..., object], returns: str = "{}") -> F:
    """Gives a method the name, docstring and signature of the function that makes its operation."""
    signature = _signature(make)
    # Annotations are strings; the return annotation names the type of the parsed answer.
    parsed = str(signature.return_annotation).removeprefix("Operation[").removesuffix("]")
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [one for one in signature.parameters.values() if one.annotation != "Identity"]
    functools.update_wrapper(method, make)
    # Python names both in errors about wrong arguments.
    method.__name__ = method.__qualname__ = make.__qualname__ = make.__name__.strip("_")
    returned = returns.format(parsed)
    method.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": returned}
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]  # inspect reads it
        parameters=[itself, *parameters], return_annotation=returned
    )
    return method
