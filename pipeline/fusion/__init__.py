"""The fusion trainer: models, fitting, metrics."""
