"""Client, emulator and description, held against each other by tools that were written elsewhere.

The emulator could share a misunderstanding with the client, and both with the description that
they were made from. Schemathesis, Prism, openapi-core and Intercom's own SDK know nothing of
either: what they find is a fault in one of the three, or it is said here why it is none.
"""
