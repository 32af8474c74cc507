"""The Triton kernels. Import them only where there is a CUDA device, or for Triton's interpreter on a CPU."""
