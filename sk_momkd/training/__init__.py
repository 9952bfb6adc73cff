"""The engine: batches, the loop and its callbacks. The only floor that knows skorch."""
