"""The compiled build: the same packages, with the modules that every request passes compiled by mypyc.

Belongs here: which modules, what is done to their source on the way, making the wheel. Never here: anything that the
product needs at run time. The source stays plain Python that runs as it is; what is compiled is a copy of it.
"""
