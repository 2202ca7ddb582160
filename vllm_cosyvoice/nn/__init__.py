"""Code shared by the PyTorch networks."""
