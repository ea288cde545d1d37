// The breast as the dilated rows of the core, its crop and its outermost points, and what to sample of the image.
// Reference in numpy: preprocess/foreground.py, _dilate; window.py, crop_box and crop_facts.
//
// Memory traffic: below 0.3 MB, from L2.

constexpr int DILATE_TALL = DILATE_ROWS + 2 * EROSIONS;
constexpr int NOWHERE = -(1 << 20);  // extent of a row without core; remains negative if EROSIONS is added

using Reach = int[DILATE_TALL];

__device__ inline int reach_at(const Reach& reach, int row) { return row >= 0 && row < DILATE_TALL ? reach[row] : NOWHERE; }

// One step of a dilation with the diamond, of the extents of the rows: the maximum over rows at distance d of extent - d
// grows with `step_of` as the diamond of `erode`.
__device__ inline int spread(const Reach& reach, int row, int step) {
    return max(reach[row] + step, max(reach_at(reach, row - step), reach_at(reach, row + step)));
}

// Grid: (LARGEST_SIDE / DILATE_ROWS, 1, images).
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
dilate(const char* staging, long long area_bytes, char*, char* all_placing, char* samples) {
    __shared__ Reach lefts[2], rights[2];  // lefts: negative
    const Whole whole = whole_of(staging, area_bytes, all_placing, samples);
    const int first = blockIdx.x * DILATE_ROWS;
    if (!whole.area->whole || first >= whole.rows) return;
    Placing& placing = *whole.placing;
    for (int i = threadIdx.x; i < DILATE_TALL; i += PLACE_THREADS) {
        const int row = first - EROSIONS + i;
        const bool has_core = row >= 0 && row < whole.rows && placing.core_right[row] > 0;
        lefts[0][i] = has_core ? -placing.core_left[row] : NOWHERE;
        rights[0][i] = has_core ? placing.core_right[row] : NOWHERE;
    }
    int now = 0;
#pragma unroll 1
    for (int radius = 0; radius < EROSIONS; radius += step_of(radius), now = 1 - now) {
        __syncthreads();
        for (int i = threadIdx.x; i < DILATE_TALL; i += PLACE_THREADS) {
            lefts[1 - now][i] = spread(lefts[now], i, step_of(radius));
            rights[1 - now][i] = spread(rights[now], i, step_of(radius));
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < DILATE_ROWS && first + i < whole.rows; i += PLACE_THREADS) {
        placing.left[first + i] = max(-lefts[now][EROSIONS + i], 0);
        placing.right[first + i] = max(0, min(rights[now][EROSIONS + i], whole.columns));
    }
}

struct Lowest {
    __device__ int operator()(int a, int b) const { return min(a, b); }
};
struct Highest {
    __device__ int operator()(int a, int b) const { return max(a, b); }
};

// Reduces value(row) of the rows first..end - 1 for which `where` is true.
template <class Join, class Value, class Where>
__device__ int over_rows(int first, int end, int none, Join join, Value value, Where where) {
    int all = none;
#pragma unroll 1
    for (int row = first + threadIdx.x; row < end; row += PLACE_THREADS)
        if (where(row)) all = join(all, value(row));
    return reduce<PLACE_THREADS>(all, join);
}

// The refusal of an image by its range, as preprocess/prepare.py, _check_range, in the same order.
__device__ inline int status_of(const Range& range, bool has_core) {
    if (range.not_finite) return STATUS_NOT_FINITE;
    if (range.low < 0) return STATUS_NEGATIVE;
    if (range.high == 0) return STATUS_EMPTY;
    if (range.low == range.high) return STATUS_CONSTANT;
    return has_core ? STATUS_OK : STATUS_THIN;
}

__device__ inline Range range_of(const Placing& placing) {
    Range all = placing.ranges[0];
    for (int i = threadIdx.x; i < placing.blocks; i += PLACE_THREADS) {
        const Range& range = placing.ranges[i];
        all = {range.low < all.low ? range.low : all.low, range.high > all.high ? range.high : all.high,
               all.not_finite | range.not_finite};
    }
    return {reduce<PLACE_THREADS>(all.low, [](float a, float b) { return b < a ? b : a; }),
            reduce<PLACE_THREADS>(all.high, [](float a, float b) { return b > a ? b : a; }),
            __syncthreads_or(all.not_finite)};
}

// Places a sample behind the others; returns where the next begins.
__device__ inline int add_sample(Facts& facts, int index, const Sample& sample, int item) {
    facts.samples[index] = sample;
    return sample.offset + (sample.rows * sample.columns * item + 15) / 16 * 16;
}

__device__ inline int steps(int length, int step) { return (length + step - 1) / step; }

// Lists the samples, in the order of preprocess/surroundings.py, damage.py, diagnosis.py.
__device__ inline void list_samples(const Whole& whole, Facts& facts, int left, int right) {
    const int rows = whole.rows, columns = whole.columns, top = facts.top, height = facts.bottom - top;
    const int item = whole.area->kind == PIXEL_FLOAT32 ? 4 : whole.area->kind == PIXEL_UINT16 ? 2 : 1;
    const int grid = max(1, max(height, right - left) / GRID_POINTS);
    const int coarse = max(1, max(rows, columns) / GRID_POINTS);
    const int lines = max(1, height / OUTLINE_ROWS);
    facts.left_offset = FACTS_BYTES;
    facts.right_offset = facts.left_offset + (4 * height + 15) / 16 * 16;
    int at = 2 * facts.right_offset - facts.left_offset;
    const auto add = [&](int index, int down, int across, Sample from) {
        from.offset = at;
        from.rows = down;
        from.columns = across;
        at = add_sample(facts, index, from, item);
    };
    add(SAMPLE_GRID, steps(height, grid), steps(right - left, grid), {0, 0, 0, top, left, grid, 0, 0, grid});
    add(SAMPLE_ROW_LINES, rows, steps(right - left, LINE_STEP), {0, 0, 0, 0, left, 1, 0, 0, LINE_STEP});
    add(SAMPLE_COLUMN_LINES, columns, steps(height, LINE_STEP), {0, 0, 0, top, 0, 0, 1, LINE_STEP, 0});
    add(SAMPLE_FIRST_ROW, 1, columns, {0, 0, 0, 0, 0, 0, 0, 0, 1});
    add(SAMPLE_LAST_ROW, 1, columns, {0, 0, 0, rows - 1, 0, 0, 0, 0, 1});
    add(SAMPLE_FIRST_COLUMN, 1, rows, {0, 0, 0, 0, 0, 0, 0, 1, 0});
    add(SAMPLE_LAST_COLUMN, 1, rows, {0, 0, 0, 0, columns - 1, 0, 0, 1, 0});
    add(SAMPLE_OUTLINE, steps(height, lines), OUTLINE_COLUMNS, {0, 0, 0, top, 0, lines, 0, 0, 0});
    add(SAMPLE_WHOLE, steps(rows, coarse), steps(columns, coarse), {0, 0, 0, 0, 0, coarse, 0, 0, coarse});
    add(SAMPLE_BESIDE, steps(height, BESIDE_STEP), steps(columns, BESIDE_STEP),
        {0, 0, 0, top, 0, BESIDE_STEP, 0, 0, BESIDE_STEP});
}

// Grid: (1, 1, images).
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
outline(const char* staging, long long area_bytes, char*, char* all_placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, all_placing, samples);
    if (!whole.area->whole) return;
    const Placing& placing = *whole.placing;
    const Range range = range_of(placing);
    const auto has_breast = [&](int row) { return placing.right[row] > 0; };
    const auto index = [](int row) { return row; };
    // First column, and last column plus one, of a row of the upright breast.
    const auto begin = [&](int row) { return whole.mirrored ? whole.columns - placing.right[row] : placing.left[row]; };
    const auto end = [&](int row) { return whole.mirrored ? whole.columns - placing.left[row] : placing.right[row]; };
    const int top = over_rows(0, whole.rows, whole.rows, Lowest{}, index, has_breast);
    const int bottom = over_rows(0, whole.rows, -1, Highest{}, index, has_breast) + 1;
    const int left = over_rows(0, whole.rows, whole.columns, Lowest{}, begin, has_breast);
    const int right = over_rows(0, whole.rows, 0, Highest{}, end, has_breast);
    const int crop_top = max(0, top - BUFFER), crop_bottom = min(whole.rows, bottom + BUFFER);
    const int below = max(top, crop_top + (crop_bottom - crop_top) / 3);  // the first row that may have outermost points
    const int outermost = over_rows(below, bottom, 0, Highest{}, end, has_breast);
    const auto is_outermost = [&](int row) { return end(row) == outermost; };
    const int first = over_rows(below, bottom, whole.rows, Lowest{}, index, is_outermost);
    const int last = over_rows(below, bottom, -1, Highest{}, index, is_outermost);
    if (threadIdx.x > 0) return;
    Facts& facts = *whole.facts;
    facts.low = range.low;
    facts.high = range.high;
    facts.status = status_of(range, bottom > 0);
    if (facts.status != STATUS_OK) return;
    const int counted = whole.mirrored;  // of a view that faces left, columns are counted from 1
    facts.top = top;
    facts.bottom = bottom;
    facts.crop_top = crop_top;
    facts.crop_left = facts.distance = left;
    facts.crop_bottom = crop_bottom;
    facts.crop_right = min(whole.columns, right + BUFFER);
    facts.outermost_first = first - crop_top;
    facts.outermost_last = last - crop_top;
    facts.outermost_column = outermost - 1 - left + counted;
    facts.lowest_row = bottom - 1 - crop_top;
    facts.lowest_first = begin(bottom - 1) - left + counted;
    facts.lowest_last = end(bottom - 1) - left - 1 + counted;
    list_samples(whole, facts, left, right);
}
