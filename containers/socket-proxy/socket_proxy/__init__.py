"""A proxy before the Docker socket that lets through what the pipeline needs, and nothing else."""
