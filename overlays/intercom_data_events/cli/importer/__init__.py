"""Importing a file of events: from its bytes to what became of each event."""
