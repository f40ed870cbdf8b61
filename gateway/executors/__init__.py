"""Ways of running a version: one file for each kind of backend, the same four methods in each.

Belongs here: `prepare`, `ready`, `execute`, `release` (`ports.Executor`). Never here: rules, cohorts, shadows, records.
"""
