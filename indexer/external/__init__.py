"""A bundle's passages in an external database: what is read and written there, and how each kind
of database is spoken to.
"""
