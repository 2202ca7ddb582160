"""The flow in PyTorch: for CPUs, for training, and as the reference for the other backends."""
