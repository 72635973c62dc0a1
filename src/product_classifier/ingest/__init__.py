"""From a data source to a validated, split and published catalogue."""
