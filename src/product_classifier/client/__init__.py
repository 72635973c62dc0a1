"""The Python client of the two services."""
