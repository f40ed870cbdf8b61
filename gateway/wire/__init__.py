"""HTTP/1.1 over asyncio: the pooled upstream client, and later the server protocol of the hot path.

Belongs here: connections, framing, deadlines. Never here: models, versions, rules.
"""
