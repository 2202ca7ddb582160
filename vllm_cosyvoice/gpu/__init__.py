"""GPU code shared by all networks: the device, kernel launches and CUDA graphs."""
