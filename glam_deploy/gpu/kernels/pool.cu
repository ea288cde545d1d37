// Pools the patch maps to predictions: the mean of the largest values of each class; and the mean over the scales.
// Reference in numpy: engines/fusion_head.py, top_mean.
//
// Memory traffic per block: the maps of a class (65 KB per patch), five times; after the first time from L1 or L2.

constexpr int DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS, DIGITS_PER_LANE = DIGITS / 32;
constexpr int POOL_GROUPS = PATCH_MAP * PATCH_MAP / 4;  // of 4 cells of a map
static_assert(POOL_GROUPS % POOL_THREADS == 0 && POOL_THREADS >= DIGITS, "remaining cells or digits");

// The maps of one class in patch slots with consecutive locations; unused slots are not read.
struct PatchMaps {
    const float4* first;
    const long long* locations;
    int slots;

    __device__ bool is_used(int slot) const { return locations[2 * slot] >= 0; }

    // Calls `visit` with every value of the calling thread, in a fixed order.
    template <class Visit>
    __device__ void each(Visit visit) const {
        for (int slot = 0; slot < slots; ++slot) {
            if (!is_used(slot)) continue;
            const float4* map = first + slot * CLASSES * POOL_GROUPS;
#pragma unroll
            for (int i = 0; i < POOL_GROUPS; i += POOL_THREADS) {
                const float4 four = map[i + threadIdx.x];
                visit(four.x);
                visit(four.y);
                visit(four.z);
                visit(four.w);
            }
        }
    }
};

// Unsigned number whose order is that of the floats, and the float of such a number.
__device__ inline unsigned int rank_of(float value) {
    const unsigned int bits = __float_as_uint(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float value_of(unsigned int rank) {
    return __uint_as_float(rank >> 31 ? rank & 0x7fffffffu : ~rank);
}

// Digit of the `wanted`-th largest rank, from the number of ranks with each digit. `wanted` becomes its place among the
// ranks with that digit. Called by the first warp; a lane has DIGITS_PER_LANE adjacent digits.
__device__ inline void find_digit(const unsigned int* numbers, unsigned int& digit, unsigned int& wanted) {
    const unsigned int* own = numbers + threadIdx.x * DIGITS_PER_LANE;
    unsigned int all = 0, above = 0;  // of the lane's block of lanes; of the lanes above the lane
    for (int i = 0; i < DIGITS_PER_LANE; ++i) all += own[i];
    for (int distance = 1; distance < 32; distance *= 2) {
        const unsigned int other = __shfl_xor_sync(0xffffffffu, all, distance);
        if (!(threadIdx.x & distance)) above += other;
        all += other;
    }
    const unsigned int place = wanted;
    __syncwarp();  // every lane has read `wanted`
    for (int i = DIGITS_PER_LANE - 1; i >= 0; above += own[i--])
        if (above < place && place <= above + own[i]) {
            digit = threadIdx.x * DIGITS_PER_LANE + i;
            wanted = place - above;
        }
}

// The `count`-th largest value, exactly, digit by digit of its rank. All threads of the block call it with equal maps.
__device__ inline float select(const PatchMaps& maps, unsigned int count) {
    __shared__ unsigned int numbers[DIGITS], digit, wanted;
    if (threadIdx.x == 0) wanted = count;
    unsigned int known = 0;
    for (int shift = 32 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        if (threadIdx.x < DIGITS) numbers[threadIdx.x] = 0;
        __syncthreads();
        maps.each([&](float value) {
            const unsigned int rank = rank_of(value);
            if ((rank ^ known) >> shift >> DIGIT_BITS == 0) atomicAdd(&numbers[rank >> shift & (DIGITS - 1)], 1u);
        });
        __syncthreads();
        if (threadIdx.x < 32) find_digit(numbers, digit, wanted);
        __syncthreads();
        known |= digit << shift;
    }
    return value_of(known);
}

// Mean of the largest values of all used maps; NaN without a used map, or with a value that is not finite.
__device__ inline float top_mean(const PatchMaps& maps) {
    int used = 0;
    for (int slot = 0; slot < maps.slots; ++slot) used += maps.is_used(slot);
    const float nan = __uint_as_float(0x7fffffffu);
    if (used == 0) return nan;
    // half to even, as in the published code
    const int count = static_cast<int>(rint(POOL_FRACTION * PATCH_MAP * PATCH_MAP * used));
    const float threshold = select(maps, count);
    float above = 0;
    bool finite = true;
    maps.each([&](float value) {
        above += max(value - threshold, 0.0f);
        finite = finite & isfinite(value);
    });
    if (__syncthreads_or(!finite)) return nan;
    return threshold + total<POOL_THREADS>(above) / static_cast<float>(count);  // values at the threshold add nothing
}

// Grid: (groups of `slots` patch slots, classes, images). `pooled`: a value for each group and class. `y_global`: the
// mean over the scales.
extern "C" __global__ void __launch_bounds__(POOL_THREADS)
pool(const float4* saliency_patches, const long long* all_locations, const float* y_scale, float* pooled,
     float* y_global, int slots) {
    const int image = blockIdx.z, label = blockIdx.y, slot = image * MAX_PATCHES + blockIdx.x * slots;
    const PatchMaps maps = {saliency_patches + (slot * CLASSES + label) * POOL_GROUPS, all_locations + 2 * slot, slots};
    const float mean = top_mean(maps);
    if (threadIdx.x > 0) return;
    pooled[(image * gridDim.x + blockIdx.x) * CLASSES + label] = mean;
    if (blockIdx.x > 0) return;
    float scales = 0;
    for (int scale = 0; scale < SCALES; ++scale) scales += y_scale[(image * SCALES + scale) * CLASSES + label];
    y_global[image * CLASSES + label] = scales / SCALES;
}
