"""The vocoder in PyTorch: on a CPU, for training, and as the reference for the GPU's."""
