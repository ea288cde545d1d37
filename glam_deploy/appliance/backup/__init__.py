"""Copies of a data folder: backups, their restoration, and the copy that a standby node takes over.

manifest.py    what is in a copy, and who has taken it over
copying.py     data folder -> copy, while the appliance runs
restoring.py   copy -> empty data folder
replication.py keeps the copy of `[standby]` current, and holds deliveries once another node has taken over
"""
