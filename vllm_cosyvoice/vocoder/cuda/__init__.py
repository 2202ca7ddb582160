"""The vocoder in fused kernels and CUDA graphs."""
