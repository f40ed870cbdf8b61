"""Wire protocols: one file each, translating between bodies and tensors, errors and statuses, paths and what is asked.

Belongs here: `parse`, `decode`, `encode`, `render_error` and the table of routes of a protocol, and the face that
calls the data plane. Never here: choosing versions, calling executors, sockets.
"""
