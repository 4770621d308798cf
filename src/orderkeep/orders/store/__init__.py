"""All SQL of the order service: one module for each group of tables.

Every statement that can race is guarded by what it expects to find and tells which rows it hit.
Rows that a use case will change are locked first, all at once, in the order of their keys.
"""
