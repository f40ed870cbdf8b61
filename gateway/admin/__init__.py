"""The admin port: JSON for operators and auditors, metrics and probes.

Belongs here: HTTP to calls of the control plane and back. Never here: rules of its own, or a decision.
"""
