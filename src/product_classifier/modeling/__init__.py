"""The networks and what they need to score. Only builders and training import TensorFlow; `predictor` does not."""
