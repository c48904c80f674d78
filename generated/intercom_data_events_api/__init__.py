"""A client library for accessing Intercom data events"""

from typing import Final

from .client import AuthenticatedClient, Client

API_VERSION: Final = "2.16"

__all__ = (
    "API_VERSION",
    "AuthenticatedClient",
    "Client",
)
