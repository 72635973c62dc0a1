"""Batch prediction: a CSV file and photos in, a table of answers out."""
