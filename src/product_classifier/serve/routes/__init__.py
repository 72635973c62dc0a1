"""The routes of the prediction API, one file per subject."""
