"""What made what: DVC's graph, cache and remote, lineage, and the way back to an earlier state."""
