// What the kernels share. The last axis of every grid counts images; blocks of a kernel never wait for each other.
// Every floating-point operation rounds once: compile without contraction to FMA, with IEEE division and denormals.

using Count = unsigned long long;

constexpr int MAP_CELLS = MAP_ROWS * MAP_COLUMNS;
constexpr int PIXELS = INPUT_ROWS * INPUT_COLUMNS;
constexpr int MOMENTS_BLOCKS = INPUT_ROWS / MOMENTS_ROWS;

template <class Sum>
struct Moments {
    Sum sum, squares;
};

// What the blocks of one image leave for each other and for the next launch. All zero before the first launch ever;
// the block that finishes last sets counters back, so a launch may be repeated, also by a CUDA graph.
struct Scratch {
    union {  // of each block of `moments`
        Moments<Count> whole[MOMENTS_BLOCKS];
        Moments<double> real[MOMENTS_BLOCKS];
    };
    float mean, divisor;                      // of `moments`, for `standardize`
    Count best;                               // of `propose`: the largest key so far
    unsigned int moments_done, propose_done;  // blocks that have finished
};
static_assert(sizeof(Scratch) <= SCRATCH_BYTES, "SCRATCH_BYTES is too small");

__device__ inline Scratch& scratch_of(char* scratch, int image) {
    return *reinterpret_cast<Scratch*>(scratch + static_cast<long long>(image) * SCRATCH_BYTES);
}

// The values of all threads of a block put together, in an order that is always the same; every thread gets the result.
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
