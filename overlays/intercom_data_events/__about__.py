"""The version of this distribution; the build and the User-Agent read it here."""

#: The version of this package.
__version__ = "0.1.0"
