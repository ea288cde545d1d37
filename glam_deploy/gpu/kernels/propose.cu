// Selects the next window with the largest summed saliency, bit-identical to patches/host.py, choose_windows.
//
// Memory traffic: each block (17 per image in GLAM) reads the image's two maps (177 KB), from L2 after the first read.

constexpr int HEAT_ROWS = PROPOSE_ROWS + WINDOW - 1;
constexpr int PLACES_DOWN = MAP_ROWS - WINDOW + 1, PLACES_ACROSS = MAP_COLUMNS - WINDOW + 1;
constexpr int PROPOSE_BLOCKS = (PLACES_DOWN + PROPOSE_ROWS - 1) / PROPOSE_ROWS;  // the last may have fewer rows
static_assert(MAP_CELLS % 4 == 0, "maps are read in groups of 4 cells");
static_assert(PLACES_ACROSS >= PROPOSE_TILE && PROPOSE_ROWS % PROPOSE_TILE == 0, "a tile leaves the map");
constexpr int TILES_ACROSS = (PLACES_ACROSS + PROPOSE_TILE - 1) / PROPOSE_TILE;

// Scaling of the map of one class to 0..1; a class without contrast becomes zeros.
struct Stretch {
    float low, span;
    bool flat;
    __device__ float operator()(float value) const { return (value - low) / (flat ? 1.0f : span); }
};

// Minimum and maximum that return NaN if an operand is NaN, as numpy's min and max do.
__device__ inline float lower(float a, float b) { return b < a || isnan(b) ? b : a; }
__device__ inline float higher(float a, float b) { return b > a || isnan(b) ? b : a; }

// Every block reads the whole map, which is faster than another launch. Each thread reads every PROPOSE_THREADS-th group
// of 4 cells.
__device__ inline Stretch stretch_of(const float4* map) {
    float low = map[0].x, high = low;
#pragma unroll 4
    for (int i = threadIdx.x; i < MAP_CELLS / 4; i += PROPOSE_THREADS) {
        const float4 four = map[i];
        low = lower(lower(lower(lower(low, four.x), four.y), four.z), four.w);
        high = higher(higher(higher(higher(high, four.x), four.y), four.z), four.w);
    }
    low = reduce<PROPOSE_THREADS>(low, lower);
    const float span = reduce<PROPOSE_THREADS>(high, higher) - low;
    return {low, span, span == 0};
}

// Computes the rows of the heat map that the windows of the block cover, with zeros below the map. Each thread computes
// every PROPOSE_THREADS-th group of 4 cells, or single cells if the rows of the map are not 16-byte aligned.
__device__ inline void fill(float* heat, const float* benign, const float* malignant, Stretch b, Stretch m) {
    constexpr int CELLS = HEAT_ROWS * MAP_COLUMNS;
    const int first = blockIdx.x * PROPOSE_ROWS * MAP_COLUMNS, inside = min(CELLS, MAP_CELLS - first);
    if constexpr (MAP_COLUMNS % 4 == 0) {
        const float4* x4 = reinterpret_cast<const float4*>(benign + first);
        const float4* y4 = reinterpret_cast<const float4*>(malignant + first);
        for (int i = threadIdx.x; i < inside / 4; i += PROPOSE_THREADS) {
            const float4 x = x4[i], y = y4[i];
            reinterpret_cast<float4*>(heat)[i] = {b(x.x) + m(y.x), b(x.y) + m(y.y), b(x.z) + m(y.z), b(x.w) + m(y.w)};
        }
    } else {
        for (int i = threadIdx.x; i < inside; i += PROPOSE_THREADS)
            heat[i] = b(benign[first + i]) + m(malignant[first + i]);
    }
    for (int i = inside + threadIdx.x; i < CELLS; i += PROPOSE_THREADS) heat[i] = 0;
}

// Sets a selected window to zero in the rows of the block; each thread sets every PROPOSE_THREADS-th cell of the window.
__device__ inline void erase(float (*heat)[MAP_COLUMNS], const long long* location) {
    const int top = static_cast<int>(location[0]) / CELL - blockIdx.x * PROPOSE_ROWS;
    const int left = static_cast<int>(location[1]) / CELL;
    for (int i = threadIdx.x; i < WINDOW * WINDOW; i += PROPOSE_THREADS) {
        const int row = top + i / WINDOW;
        if (row >= 0 && row < HEAT_ROWS) heat[row][left + i % WINDOW] = 0;
    }
}

// Sums of PROPOSE_TILE adjacent runs of WINDOW values, each added from first to last as in choose_windows. The sums start
// with +0, so no sum is -0.
__device__ inline void add_runs(const float* values, int stride, float (&sums)[PROPOSE_TILE]) {
#pragma unroll
    for (int run = 0; run < PROPOSE_TILE; ++run) sums[run] = 0;
#pragma unroll
    for (int i = 0; i < WINDOW + PROPOSE_TILE - 1; ++i) {
        const float value = values[i * stride];
#pragma unroll
        for (int run = 0; run < PROPOSE_TILE; ++run)
            if (run <= i && i < run + WINDOW) sums[run] += value;
    }
}

// Column sums of WINDOW rows; each thread computes PROPOSE_TILE vertically adjacent sums.
__device__ inline void add_down(const float (*heat)[MAP_COLUMNS], float (*tall)[MAP_COLUMNS]) {
    for (int i = threadIdx.x; i < PROPOSE_ROWS / PROPOSE_TILE * MAP_COLUMNS; i += PROPOSE_THREADS) {
        const int row = i / MAP_COLUMNS * PROPOSE_TILE, column = i % MAP_COLUMNS;
        float sums[PROPOSE_TILE];
        add_runs(&heat[row][column], MAP_COLUMNS, sums);
#pragma unroll
        for (int run = 0; run < PROPOSE_TILE; ++run) tall[row + run][column] = sums[run];
    }
}

// Key of a window; the larger key is the window that numpy's argmax selects: NaN first, then the larger sum (sums are
// not negative, so their bits are ordered like their values), then the smaller index.
__device__ inline Count key_of(float sum, int row, int column) {
    const unsigned int index = row * PLACES_ACROSS + column;
    const unsigned int rank = isnan(sum) ? 0xffffffffu : __float_as_uint(sum);
    return static_cast<Count>(rank) << 32 | ~index;
}

// The best key of the block. Each thread computes PROPOSE_TILE horizontally adjacent windows. The last tiles of a row
// overlap, so that some windows are computed twice, which does not change the maximum.
__device__ inline Count best_across(const float (*tall)[MAP_COLUMNS]) {
    Count best = 0;
    for (int i = threadIdx.x; i < PROPOSE_ROWS * TILES_ACROSS; i += PROPOSE_THREADS) {
        const int row = i / TILES_ACROSS, column = min(i % TILES_ACROSS * PROPOSE_TILE, PLACES_ACROSS - PROPOSE_TILE);
        if (blockIdx.x * PROPOSE_ROWS + row >= PLACES_DOWN) continue;
        float sums[PROPOSE_TILE];
        add_runs(&tall[row][column], 1, sums);
#pragma unroll
        for (int run = 0; run < PROPOSE_TILE; ++run)
            best = max(best, key_of(sums[run], blockIdx.x * PROPOSE_ROWS + row, column + run));
    }
    return reduce<PROPOSE_THREADS>(best, [](Count a, Count b) { return max(a, b); });
}

// Returns the best key of all blocks in the block that finishes last, and 0 in all others. Called by one thread.
__device__ inline Count last_of_all(Count best, Scratch& scratch) {
    atomicMax(&scratch.best, best);
    __threadfence();
    if (atomicAdd(&scratch.propose_done, 1u) < PROPOSE_BLOCKS - 1) return 0;
    __threadfence();
    scratch.propose_done = 0;
    return atomicExch(&scratch.best, 0ull);
}

// Grid: (PROPOSE_BLOCKS, 1, images). Launched for patch 0, 1, 2, ...; reads the locations of the earlier launches.
extern "C" __global__ void __launch_bounds__(PROPOSE_THREADS)
propose(const float* saliency, long long* all_locations, unsigned int* flags, char* all_scratch, int patch) {
    alignas(16) __shared__ float heat[HEAT_ROWS][MAP_COLUMNS];
    __shared__ float tall[PROPOSE_ROWS][MAP_COLUMNS];
    const int image = blockIdx.z;
    const float* benign = saliency + image * CLASSES * MAP_CELLS;
    const float* malignant = benign + MAP_CELLS;
    long long* locations = all_locations + image * MAX_PATCHES * 2;
    const Stretch b = stretch_of(reinterpret_cast<const float4*>(benign));
    const Stretch m = stretch_of(reinterpret_cast<const float4*>(malignant));
    fill(&heat[0][0], benign, malignant, b, m);
    __syncthreads();
    for (int i = 0; i < patch; ++i) erase(heat, locations + 2 * i);
    __syncthreads();
    add_down(heat, tall);
    __syncthreads();
    const Count best = best_across(tall);
    if (threadIdx.x > 0) return;
    const Count key = last_of_all(best, scratch_of(all_scratch, image));
    if (key == 0) return;
    const unsigned int place = ~static_cast<unsigned int>(key);
    locations[2 * patch] = place / PLACES_ACROSS * CELL;
    locations[2 * patch + 1] = place % PLACES_ACROSS * CELL;
    if (patch > 0) return;
    for (int i = 2; i < 2 * MAX_PATCHES; ++i) locations[i] = -1;  // unused slots, until a later launch fills them
    flags[image] = (b.flat ? FLAT_BENIGN : 0) | (m.flat ? FLAT_MALIGNANT : 0);
}
