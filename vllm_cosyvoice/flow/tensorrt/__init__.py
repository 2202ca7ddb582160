"""The flow's estimator as a TensorRT engine."""
