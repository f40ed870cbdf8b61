"""What proves that no record is missing and none was edited.

Belongs here: keys, checkpoints, their verification, receipts, completeness. Never here: writing records, or HTTP.
"""
