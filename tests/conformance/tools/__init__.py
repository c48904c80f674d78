"""Checks of client, emulator and description with third-party tools.

The emulator could share a misunderstanding with the client, and both with the description that
they were made from. Schemathesis, Prism, openapi-core and Intercom's own SDK are independent: what
they find is a fault in one of the three, or this package says why it is not a fault.
"""
