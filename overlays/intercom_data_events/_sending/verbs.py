"""Makes methods from operations, so that a verb's signature, docstring and checks exist once.

Each function here takes a function of :mod:`intercom_data_events._sending.operations` and returns a
method with the same docstring and, after `self`, the same parameters. Functions with a name that
begins with `a` make methods that are awaited.
"""

# ruff: noqa: SLF001  # performing an operation is not for callers, but for these methods

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from intercom_data_events._sending.operations import next_page

if TYPE_CHECKING:
    from intercom_data_events._sending.request import Operation
    from intercom_data_events.errors import APIResponse
    from intercom_data_events.pagination import AsyncEventList, EventList, Page

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")
P_co = TypeVar("P_co", covariant=True)
F = TypeVar("F", bound=Callable[..., Any])


class Performer(Protocol):
    """An object that performs operations, blocking."""

    def _perform(self, operation: Operation[T], /) -> APIResponse[T]: ...


class AsyncPerformer(Protocol):
    """An object that performs operations, awaiting."""

    async def _perform(self, operation: Operation[T], /) -> APIResponse[T]: ...


class Bound(Protocol[P_co]):
    """A contact, and the object that performs its operations."""

    @property
    def _client(self) -> P_co: ...
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
    """The awaited twin of :func:`verb`."""

    async def method(self: AsyncPerformer, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (await self._perform(make(*args, **kwargs))).parsed

    return _as_method(method, make)


def raw(make: Callable[P, Operation[T]]) -> Callable[Concatenate[Performer, P], APIResponse[T]]:
    """Makes a verb that returns the whole answer."""

    def method(self: Performer, /, *args: P.args, **kwargs: P.kwargs) -> APIResponse[T]:
        return self._perform(make(*args, **kwargs))

    return _as_method(method, make, "APIResponse[{}]")


def araw(
    make: Callable[P, Operation[T]],
) -> Callable[Concatenate[AsyncPerformer, P], Coroutine[Any, Any, APIResponse[T]]]:
    """The awaited twin of :func:`raw`."""

    async def method(self: AsyncPerformer, /, *args: P.args, **kwargs: P.kwargs) -> APIResponse[T]:
        return await self._perform(make(*args, **kwargs))

    return _as_method(method, make, "APIResponse[{}]")


def bound(
    make: Callable[Concatenate[Any, P], Operation[T]],
) -> Callable[Concatenate[Bound[Performer], P], T]:
    """Makes a contact's verb that returns the parsed answer."""

    def method(self: Bound[Performer], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client._perform(make(self.identity, *args, **kwargs)).parsed

    return _as_method(method, make)


def abound(
    make: Callable[Concatenate[Any, P], Operation[T]],
) -> Callable[Concatenate[Bound[AsyncPerformer], P], Coroutine[Any, Any, T]]:
    """The awaited twin of :func:`bound`."""

    async def method(self: Bound[AsyncPerformer], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return (await self._client._perform(make(self.identity, *args, **kwargs))).parsed

    return _as_method(method, make)


def listing(make: Callable[P, Operation[Page]]) -> Callable[Concatenate[Performer, P], EventList]:
    """Makes a verb that iterates over all pages."""

    def method(self: Performer, /, *args: P.args, **kwargs: P.kwargs) -> EventList:
        from intercom_data_events.pagination import EventList

        return EventList(*_pages(self._perform, make(*args, **kwargs)))

    return _as_method(method, make, "EventList")


def alisting(
    make: Callable[P, Operation[Page]],
) -> Callable[Concatenate[AsyncPerformer, P], AsyncEventList]:
    """The twin of :func:`listing` for ``async for``; it is not awaited itself."""

    def method(self: AsyncPerformer, /, *args: P.args, **kwargs: P.kwargs) -> AsyncEventList:
        from intercom_data_events.pagination import AsyncEventList

        return AsyncEventList(*_pages(self._perform, make(*args, **kwargs)))

    return _as_method(method, make, "AsyncEventList")


def bound_listing(
    make: Callable[Concatenate[Any, P], Operation[Page]],
) -> Callable[Concatenate[Bound[Performer], P], EventList]:
    """Makes a contact's verb that iterates over all pages."""

    def method(self: Bound[Performer], /, *args: P.args, **kwargs: P.kwargs) -> EventList:
        from intercom_data_events.pagination import EventList

        return EventList(*_pages(self._client._perform, make(self.identity, *args, **kwargs)))

    return _as_method(method, make, "EventList")


def abound_listing(
    make: Callable[Concatenate[Any, P], Operation[Page]],
) -> Callable[Concatenate[Bound[AsyncPerformer], P], AsyncEventList]:
    """The twin of :func:`bound_listing` for ``async for``; it is not awaited itself."""

    def method(self: Bound[AsyncPerformer], /, *args: P.args, **kwargs: P.kwargs) -> AsyncEventList:
        from intercom_data_events.pagination import AsyncEventList

        return AsyncEventList(*_pages(self._client._perform, make(self.identity, *args, **kwargs)))

    return _as_method(method, make, "AsyncEventList")


def _pages(
    perform: Callable[[Operation[Page]], R], first: Operation[Page]
) -> tuple[Callable[[str | None], R], str]:
    """Returns what a listing is made of: a function that gets a page, and the first query."""
    return lambda query: perform(first if query is None else next_page(query)), first.sent_query


def _as_method(method: F, make: Callable[..., object], returns: str = "{}") -> F:
    """Gives a method the name, docstring and signature of the function that makes its operation."""
    signature = inspect.signature(make)
    # Annotations are strings; the return annotation names the type of the parsed answer.
    parsed = str(signature.return_annotation).removeprefix("Operation[").removesuffix("]")
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [one for one in signature.parameters.values() if one.annotation != "Identity"]
    functools.update_wrapper(method, make)
    method.__name__ = make.__name__.strip("_")
    returned = returns.format(parsed)
    method.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": returned}
    method.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[itself, *parameters], return_annotation=returned
    )
    return method
