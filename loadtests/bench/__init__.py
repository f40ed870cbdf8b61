"""What every measurement is made of: programs on a core, their CPU time from /proc, load, right answers, a report.

Belongs here: how something is measured. Never here: what is measured against what, or a pass mark. Pointsman is
driven from outside only, through its ports, its settings and /proc, as every peer is.
"""
