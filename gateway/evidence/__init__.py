"""What an auditor can ask, and what is done so that the answer can be trusted: evidence, and privacy that keeps it
intact.

Belongs here: sealing, verifying, proving, re-computing, re-running, erasing and pruning records. Never here: HTTP,
SQL, or being on the request path.
"""
