"""From an operation to an answer: builds the request, sends it, and reads or classifies it."""
