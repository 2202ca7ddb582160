"""What the PyTorch networks share."""
