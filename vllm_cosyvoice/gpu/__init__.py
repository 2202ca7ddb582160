"""What the GPU code of all networks shares: the device, kernel launches and CUDA graphs."""
