// Small kernels for the tests of the device room.

extern "C" __global__ void scale(const float* from, float* to, float factor, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) to[i] = from[i] * factor;
}


// Every kind of scalar, so that each must be found where it lies.
extern "C" __global__ void tell(double* out, bool a, signed char b, unsigned char c, short d, unsigned short e, int f,
                                unsigned int g, long long h, unsigned long long i, float j, double k) {
    const double all[] = {double(a), double(b), double(c), double(d), double(e), double(f),
                          double(g), double(h), double(i), double(j), k};
    for (int at = 0; at < 11; ++at) out[at] = all[at];
}

extern "C" __global__ void where(unsigned int* out) {
    const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

extern "C" __global__ void nothing() {}

extern "C" __global__ void stray(float* at, long long index) { at[index] = 1.0f; }
