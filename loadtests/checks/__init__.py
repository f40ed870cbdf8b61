"""The promises that are ratios, each with its bound, and how each is measured.

Belongs here: one file a group of promises. Never here: how to start or load anything (that is `bench`).
"""
