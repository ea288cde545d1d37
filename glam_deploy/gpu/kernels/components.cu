// The largest 4-connected component of the core, of the first in row-major order among equals, as the extent of each of
// its rows. Reference in numpy: preprocess/foreground.py, _largest_component.
//
// The runs of the rows are joined in a union-find forest, in which every link leads to a smaller index: the root of a
// component is the run of its first pixel, whatever the order of the threads.
//
// Memory traffic of a 3328 x 2560 image: the core, 1.1 MB, is read five times from L2; 0.5 MB are written.

// Grid: (any number of blocks, 1, images). Each warp reads rows from left to right, a word per lane.
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
list_runs(const char* staging, long long area_bytes, char*, char* placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, placing, samples);
    if (!whole.area->whole) return;
    const int lane = threadIdx.x % 32;
    for (int row = blockIdx.x * WARPS + threadIdx.x / 32; row < whole.rows; row += gridDim.x * WARPS) {
        int carried = 0;  // first column of the run that reaches up to the lanes
        for (int first = 0; first < whole.words; first += 32) {
            const int word = first + lane, i = row * whole.words + word;
            const unsigned int bits = word < whole.words ? whole.core[i] : 0;
            const int after_gap = 32 * word + 32 - __clz(~bits);  // first column after the last gap in the word
            const unsigned int gaps = __ballot_sync(ALL_LANES, ~bits != 0), lower = gaps & low_bits(lane);
            const int after_lower = __shfl_sync(ALL_LANES, after_gap, lower ? 31 - __clz(lower) : 0);
            const int after_all = __shfl_sync(ALL_LANES, after_gap, gaps ? 31 - __clz(gaps) : 0);
            const int start = lower ? after_lower : carried;
            carried = gaps ? after_all : carried;
            if (word >= whole.words) continue;
            whole.starts[i] = start;
            for (unsigned int begins = bits & ~(bits << 1 | (start < 32 * word)); begins; begins &= begins - 1)
                whole.runs[16 * i + (__ffs(begins) - 1) / 2] = ROOT;
        }
        if (lane == 0) {
            whole.placing->core_left[row] = whole.columns;
            whole.placing->core_right[row] = 0;
        }
    }
}

// First column of the run with the pixel of a bit of word `i` of the core.
__device__ inline int start_of(const Whole& whole, int i, int bit) {
    const unsigned int gaps = ~whole.core[i] & low_bits(bit);
    return gaps ? i % whole.words * 32 + 32 - __clz(gaps) : whole.starts[i];
}

__device__ inline unsigned int run_of(const Whole& whole, int i, int start) {
    return 16 * (i - i % whole.words) + start / 2;
}

// The root of a run. Halves the path on its way, so that paths stay short whatever the shape of the component.
__device__ inline unsigned int root_of(unsigned int* runs, unsigned int run) {
    for (;;) {
        const unsigned int next = __ldcg(&runs[run]);  // other blocks change it: bypass L1
        if (next & ROOT) return run;
        const unsigned int after = __ldcg(&runs[next]);
        if (after & ROOT) return next;
        runs[run] = after;
        run = after;
    }
}

__device__ inline void join(unsigned int* runs, unsigned int a, unsigned int b) {
    for (;;) {
        a = root_of(runs, a);
        b = root_of(runs, b);
        if (a == b) return;
        const unsigned int upper = min(a, b), found = atomicCAS(&runs[max(a, b)], ROOT, upper);
        if (found == ROOT) return;
        a = upper;  // another thread linked the lower root first
        b = found;
    }
}

// Grid: (any number of blocks, 1, images). Joins the runs of neighbouring rows that share a column.
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
join_runs(const char* staging, long long area_bytes, char*, char* placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, placing, samples);
    if (!whole.area->whole) return;
    const int first = whole.words + blockIdx.x * PLACE_THREADS + threadIdx.x;
    for (int i = first; i < whole.rows * whole.words; i += gridDim.x * PLACE_THREADS) {
        const int above = i - whole.words;
        const unsigned int shared = whole.core[i] & whole.core[above];
        if (!shared) continue;
        const unsigned int before = i % whole.words ? whole.core[i - 1] & whole.core[above - 1] : 0;
        for (unsigned int begins = shared & ~(shared << 1 | before >> 31); begins; begins &= begins - 1) {
            const int bit = __ffs(begins) - 1;
            join(whole.runs, run_of(whole, i, start_of(whole, i, bit)),
                 run_of(whole, above, start_of(whole, above, bit)));
        }
    }
}

// Calls use(row, first column, last column plus one, root) for every run.
template <class Use>
__device__ void for_runs(const Whole& whole, Use use) {
    const int first = blockIdx.x * PLACE_THREADS + threadIdx.x;
    for (int i = first; i < whole.rows * whole.words; i += gridDim.x * PLACE_THREADS) {
        const unsigned int bits = whole.core[i];
        if (!bits) continue;
        const int word = i % whole.words;
        const unsigned int after = word + 1 < whole.words ? whole.core[i + 1] : 0;
        for (unsigned int ends = bits & ~(bits >> 1 | after << 31); ends; ends &= ends - 1) {
            const int bit = __ffs(ends) - 1, start = start_of(whole, i, bit);
            use(i / whole.words, start, 32 * word + bit + 1, root_of(whole.runs, run_of(whole, i, start)));
        }
    }
}

// Grid: (any number of blocks, 1, images). Adds the lengths of the runs to their roots. Sizes only grow, so the largest
// key that was seen at any time is that of the largest component.
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
measure_runs(const char* staging, long long area_bytes, char*, char* placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, placing, samples);
    if (!whole.area->whole) return;
    Count best = 0;
    for_runs(whole, [&](int, int left, int right, unsigned int root) {
        const unsigned int length = right - left, size = (atomicAdd(&whole.runs[root], length) & ~ROOT) + length;
        best = max(best, static_cast<Count>(size) << 32 | ~root);
    });
    best = reduce<PLACE_THREADS>(best, [](Count a, Count b) { return max(a, b); });
    if (threadIdx.x == 0 && best) atomicMax(&whole.placing->best, best);
}

// Grid: (any number of blocks, 1, images). Extent of each row of the largest component.
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
core_rows(const char* staging, long long area_bytes, char*, char* all_placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, all_placing, samples);
    if (!whole.area->whole) return;
    Placing& placing = *whole.placing;
    const unsigned int largest = ~static_cast<unsigned int>(placing.best);
    for_runs(whole, [&](int row, int left, int right, unsigned int root) {
        if (root != largest) return;
        atomicMin(&placing.core_left[row], left);
        atomicMax(&placing.core_right[row], right);
    });
}
