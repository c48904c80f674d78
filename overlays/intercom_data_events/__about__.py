"""The version of this distribution; the build and the User-Agent read it here."""

#: The version of this distribution.
#:
#: Example:
#:     >>> from intercom_data_events import __version__
#:     >>> tuple(map(int, __version__.split("."))) >= (0, 1)
#:     True
__version__ = "0.1.0"
