"""Training of one candidate bundle: text branch, image branch, fusion, calibration, evaluation, export."""
