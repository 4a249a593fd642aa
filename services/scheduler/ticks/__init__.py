"""The leader's duties, one a file: `async def tick(ctx) -> int`, how much it did. A test calls them by hand."""
