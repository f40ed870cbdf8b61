"""Evidence for auditors, worked out from what the store holds: that the rules were followed, that a model really says
what was recorded, that nothing is missing and nothing was edited; and records in a form to take away.

Belongs here: examining records that are there. Never here: HTTP, the command line, writing records, or being on the
request path.
"""
