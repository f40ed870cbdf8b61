"""Stores behind the ports: rules in Redis or Valkey, records in SQLite.

Belongs here: one file per kind of store. Never here: making ids or times, or rules of the business.
"""
