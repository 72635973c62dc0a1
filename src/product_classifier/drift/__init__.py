"""The drift report: what a model was tested on, against what it is asked now."""
