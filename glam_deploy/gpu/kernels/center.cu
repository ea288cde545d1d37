// The best centre and the position of the network's window. Reference in numpy: preprocess/window.py, best_center and
// window_shift; frame.py, seen; prepare.py, _lost_share.
//
// Memory traffic of a 3328 x 2560 image: the mask of the crop, 1.1 MB at most, from L2.

// Half-open range of columns.
struct Span {
    int begin, end;
};

// A range of columns of the crop, in the source frame.
__device__ inline Span in_source(const Whole& whole, int begin, int end) {
    const int left = whole.facts->crop_left;
    if (whole.mirrored) return {whole.columns - left - end, whole.columns - left - begin};
    return {left + begin, left + end};
}

__device__ inline Count count_bits(unsigned int bits, int word, Span span, Counted counted) {
    const unsigned int inside = low_bits(span.end - 32 * word) & ~low_bits(span.begin - 32 * word);
    return static_cast<Count>(__popc(bits & inside)) << (16 * counted);
}

__device__ inline int counted_in(Count row, Counted counted) { return row >> (16 * counted) & 0xffff; }

// First pixel of the window along an axis on which the crop is larger by `last`; 0 if it is not.
__device__ inline int shifted_inside(int start, int last) { return max(0, min(start, last)); }

__device__ inline int crop_columns(const Facts& facts) { return facts.crop_right - facts.crop_left; }

// Column of the crop at which the window of the best centre ends.
__device__ inline int right_end(const Facts& facts) { return facts.outermost_column - 1; }

__device__ inline int column_shift_of(const Facts& facts) {
    return shifted_inside(right_end(facts) - INPUT_COLUMNS, crop_columns(facts) - INPUT_COLUMNS);
}

// Grid: (any number of blocks, 1, images). Each warp counts the foreground in rows of the crop.
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
count_rows(const char* staging, long long area_bytes, char*, char* placing, char* samples) {
    static_assert(LARGEST_SIDE < 1 << 16, "a number of pixels of a row has 16 bits");
    const Whole whole = whole_of(staging, area_bytes, placing, samples);
    if (!whole.area->whole || whole.facts->status != STATUS_OK) return;
    const Facts& facts = *whole.facts;
    const int columns = crop_columns(facts), right = max(0, right_end(facts)), shift = column_shift_of(facts);
    const Span crop = in_source(whole, 0, columns), last = in_source(whole, max(0, columns - INPUT_COLUMNS), columns);
    const Span inner = in_source(whole, max(0, right - INPUT_COLUMNS), right);
    const Span seen = in_source(whole, shift, min(columns, shift + INPUT_COLUMNS));
    const int lane = threadIdx.x % 32, height = facts.crop_bottom - facts.crop_top;
    for (int row = blockIdx.x * WARPS + threadIdx.x / 32; row < height; row += gridDim.x * WARPS) {
        Count all = 0;
        for (int word = crop.begin / 32 + lane; 32 * word < crop.end; word += 32) {
            const unsigned int bits = whole.mask[(facts.crop_top + row) * whole.words + word];
            all += count_bits(bits, word, crop, CROP) + count_bits(bits, word, last, LAST) +
                   count_bits(bits, word, inner, INNER) + count_bits(bits, word, seen, SEEN);
        }
        for (int distance = 16; distance > 0; distance /= 2) all += __shfl_xor_sync(ALL_LANES, all, distance);
        if (lane == 0) whole.placing->counted[row] = all;
    }
}

// Foreground in the rows begin..end - 1 of the crop.
__device__ inline int foreground_in(const Placing& placing, int begin, int end, Counted counted) {
    int all = 0;
    for (int row = begin + threadIdx.x; row < end; row += PLACE_THREADS) all += counted_in(placing.counted[row], counted);
    return total<PLACE_THREADS>(all);
}

// End row of the window of an MLO view. If the crop is not wider than the window, `last` is not above the lowest point,
// which is foreground.
__device__ inline int mlo_bottom(const Placing& placing, const Facts& facts, int height) {
    const auto index = [](int row) { return row; };
    const auto has_tissue = [&](int row) { return counted_in(placing.counted[row], LAST) > 0; };
    const int last = over_rows(0, height, -1, Highest{}, index, has_tissue);
    return min(facts.lowest_row, last) - 1;
}

// Writes `before`. Each thread adds adjacent rows; the sums of the threads are added in shared memory.
__device__ inline void add_rows_above(Placing& placing, int height) {
    __shared__ int sums[PLACE_THREADS];
    const int me = threadIdx.x, rows = steps(height, PLACE_THREADS);
    const int first = min(height, me * rows), end = min(height, first + rows);
    int sum = 0;
#pragma unroll 1
    for (int row = first; row < end; ++row) sum += counted_in(placing.counted[row], INNER);
    sums[me] = sum;
#pragma unroll 1
    for (int distance = 1; distance < PLACE_THREADS; distance *= 2) {
        __syncthreads();
        const int other = me >= distance ? sums[me - distance] : 0;
        __syncthreads();
        sums[me] += other;
    }
    int above = sums[me] - sum;
#pragma unroll 1
    for (int row = first; row < end; ++row) {
        placing.before[row] = above;
        above += counted_in(placing.counted[row], INNER);
    }
    if (me == PLACE_THREADS - 1) placing.before[height] = above;
    __syncthreads();
}

// End row of the window of a CC view: most foreground, then nearest to the middle, then the upper one.
__device__ inline int cc_bottom(Placing& placing, int height) {
    static_assert(INPUT_ROWS + LARGEST_SIDE < 1 << 16, "a row has 16 bits in a key");
    add_rows_above(placing, height);
    Count best = 0;
    for (int bottom = threadIdx.x; bottom <= height + INPUT_ROWS; bottom += PLACE_THREADS) {
        const int count = placing.before[min(bottom, height)] - placing.before[max(0, min(bottom - INPUT_ROWS, height))];
        const int distance = abs(bottom - INPUT_ROWS + INPUT_ROWS / 2 - height / 2);
        const unsigned int rank = (0xffffu - distance) << 16 | (0xffffu - bottom);
        best = max(best, static_cast<Count>(count) << 32 | rank);
    }
    best = reduce<PLACE_THREADS>(best, [](Count a, Count b) { return max(a, b); });
    return 0xffff - static_cast<int>(best & 0xffff);
}

__device__ inline int row_shift_of(int center, int height, bool is_mlo) {
    const int spare = INPUT_ROWS - height;
    if (spare < 0) return shifted_inside(center - INPUT_ROWS / 2, -spare);
    return is_mlo ? 0 : -(spare / 2);
}

// The part of the crop inside the window.
__device__ inline Window window_of(const Whole& whole, const Facts& facts) {
    const int top = max(0, facts.row_shift), left = max(0, facts.column_shift);
    const int bottom = min(facts.crop_bottom - facts.crop_top, facts.row_shift + INPUT_ROWS);
    const int right = min(crop_columns(facts), facts.column_shift + INPUT_COLUMNS);
    return {facts.crop_top + top, in_source(whole, left, right).begin, bottom - top, right - left,
            top - facts.row_shift, left - facts.column_shift};
}

// Grid: (1, 1, images).
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
center(const char* staging, long long area_bytes, char* all_scratch, char* all_placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, all_placing, samples);
    if (!whole.area->whole) return;
    Window& window = scratch_of(all_scratch, blockIdx.z).window;
    Facts& facts = *whole.facts;
    if (facts.status != STATUS_OK) {  // the result is not used
        if (threadIdx.x == 0) window = {0, 0, 0, 0, 0, 0};
        return;
    }
    Placing& placing = *whole.placing;
    const bool is_mlo = whole.area->is_mlo;
    const int height = facts.crop_bottom - facts.crop_top;
    const int bottom = is_mlo ? mlo_bottom(placing, facts, height) : cc_bottom(placing, height);
    const int center_row = bottom - INPUT_ROWS + INPUT_ROWS / 2, shift = row_shift_of(center_row, height, is_mlo);
    const int all = foreground_in(placing, 0, height, CROP);
    const int seen = foreground_in(placing, max(0, shift), min(height, shift + INPUT_ROWS), SEEN);
    if (threadIdx.x > 0) return;
    facts.center_row = center_row;
    facts.center_column = right_end(facts) - INPUT_COLUMNS + INPUT_COLUMNS / 2;
    facts.row_shift = shift;
    facts.column_shift = column_shift_of(facts);
    facts.foreground = all;
    facts.seen_foreground = seen;
    window = window_of(whole, facts);
}
