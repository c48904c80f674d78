"""Imports a file of events: from its bytes to the outcome of each event."""
