// Definitions shared by the kernels. Axis z of every grid is the image index; blocks of a kernel never wait for each
// other. Compile without contraction to FMA, with IEEE division and denormals: each operation rounds exactly once.

using Count = unsigned long long;

constexpr int MAP_CELLS = MAP_ROWS * MAP_COLUMNS;
constexpr int PIXELS = INPUT_ROWS * INPUT_COLUMNS;
constexpr int MOMENTS_BLOCKS = INPUT_ROWS / MOMENTS_ROWS;

template <class Sum>
struct Moments {
    Sum sum, squares;
};

// The part of a whole image inside the network frame: position in the source image, size, position in the frame.
struct Window {
    int top, left, rows, columns, row, column;
};

// Scratch memory of one image, for communication between blocks and with the next launch. It must be zero before the
// first launch. The last block to finish resets the counters, so a launch may be repeated, also by a CUDA graph.
struct Scratch {
    union {  // moments of each block of `moments`
        Moments<Count> whole[MOMENTS_BLOCKS];
        Moments<double> real[MOMENTS_BLOCKS];
    };
    float mean, divisor;                      // written by `moments`, read by `standardize`
    Count best;                               // `propose`: the largest key so far
    unsigned int moments_done, propose_done;  // numbers of blocks that have finished
    Window window;                            // of a whole image: written by `center`, read by the two above
};
static_assert(sizeof(Scratch) <= SCRATCH_BYTES, "SCRATCH_BYTES is too small");

__device__ inline Scratch& scratch_of(char* scratch, int image) {
    return *reinterpret_cast<Scratch*>(scratch + static_cast<long long>(image) * SCRATCH_BYTES);
}

// Reduces the values of all threads of a block, in a fixed order; returns the result in every thread.
template <int THREADS, class Value, class Join>
__device__ Value reduce(Value value, Join join) {
    static_assert(THREADS % 32 == 0, "whole warps");
    __shared__ Value of_warp[THREADS / 32];
    for (int distance = 16; distance > 0; distance /= 2)
        value = join(value, __shfl_xor_sync(0xffffffffu, value, distance));
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    Value all = of_warp[0];
    for (int warp = 1; warp < THREADS / 32; ++warp) all = join(all, of_warp[warp]);
    __syncthreads();  // of_warp may be written again
    return all;
}

template <int THREADS, class Value>
__device__ Value total(Value value) {
    return reduce<THREADS>(value, [](Value a, Value b) { return a + b; });
}
