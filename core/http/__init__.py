"""The ASGI app and the HTTP server around it: routes, origin checks, headers, the page's files, logins."""
