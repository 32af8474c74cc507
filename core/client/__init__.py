"""A client of the service's WebSocket, for `personaplex call` and `personaplex bench`."""
