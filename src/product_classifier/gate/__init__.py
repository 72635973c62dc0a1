"""The gate: which candidate may become champion."""
