"""The version of this distribution; the build and the User-Agent read it here."""

__version__ = "0.1.0"
