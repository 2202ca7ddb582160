"""The vocoder in PyTorch: for CPUs, for training, and as the reference for the CUDA backend."""
