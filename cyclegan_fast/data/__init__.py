"""The images that are trained on and tested with: found, decoded once, prepared, and gathered into batches."""
