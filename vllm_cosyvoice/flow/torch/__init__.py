"""The flow in PyTorch: on a CPU, for training, and as the reference for the others."""
