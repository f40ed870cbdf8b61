"""HTTP/1.1 over asyncio: the server of the data port and the pooled upstream client.

Belongs here: connections, framing, deadlines, TLS. Never here: models, versions, rules.

A request of the data port comes in through `serving` (sockets) → `server` (one connection) → `receiving` and `heads`
(bytes to requests), is answered by the face of a protocol or through `asgi_calls` by an application (`asgi` is ours),
and leaves through `replies` and `sending`. `deadlines` says who is late, `certificates` what TLS shows, and `port` is
what connections share.
"""
