"""The only preprocessing there is: training, batch prediction and serving import it from here. No TensorFlow."""
