"""Pointsman's gateway: `dataplane` serves, `controlplane` changes, `recorder` keeps, the second floor translates.

The floors and what belongs in each room are drawn in the README ("The house") and enforced by import contracts.
"""

__version__ = "0.1.0"
