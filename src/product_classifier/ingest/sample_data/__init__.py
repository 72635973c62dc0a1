"""Words and drawings of the generated catalogue, as data."""
