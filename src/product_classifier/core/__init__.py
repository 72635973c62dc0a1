"""What every stage stands on: settings, parameters, errors, logging, files, bundles. No TensorFlow."""
