"""The Triton kernels. Import them only where there is a CUDA device."""
