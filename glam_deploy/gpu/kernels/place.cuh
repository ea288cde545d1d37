// Memory of the kernels that find the breast in a whole image and place the window, in the order of their launches:
// foreground, erode, list_runs, join_runs, measure_runs, core_rows, dilate, outline, count_rows, center, gather.
// Axis z of every grid is the image; images that were placed on the host are skipped. Grids do not depend on the size of
// the images, which only their headers tell: blocks repeat with the stride of the grid until nothing is left.
//
// A mask has a bit per pixel, 32 columns in a word, in the source frame. Bits beyond the last column are 0.

// Smallest and largest pixel of a block of `foreground`.
struct Range {
    float low, high;
    int not_finite;
};

// A two-dimensional sample of the upright image, rows x columns values at `offset` bytes of the samples. Value (i, j) is
// pixel (row + i * row_down + j * row_across, column + i * column_down + j * column_across).
struct Sample {
    int offset, rows, columns;
    int row, column, row_down, column_down, row_across, column_across;
};

// Start of the samples of an image, as placed.py reads it. The breast is in the source frame, the rest upright.
struct Facts {
    double low, high;
    int status;
    int top, bottom;
    int crop_top, crop_left, crop_bottom, crop_right;
    int outermost_first, outermost_last, outermost_column;
    int lowest_row, lowest_first, lowest_last;
    int distance;
    int center_row, center_column, row_shift, column_shift;
    int foreground, seen_foreground;  // pixels above 0 in the crop, and in its part inside the window
    int left_offset, right_offset;    // of int32 [bottom - top]: first column, last column plus one
    Sample samples[SAMPLES];
};
static_assert(sizeof(Facts) <= FACTS_BYTES, "FACTS_BYTES is too small");

// Numbers of foreground pixels of a row, 16 bits each. `last` is of the last INPUT_COLUMNS columns of the crop, `inner` of
// the columns that end at the outermost point, `seen` of those in the window.
enum Counted { CROP, LAST, INNER, SEEN };

struct Placing {
    Count best;  // of the largest component: its size above its inverted run; 0 without a component
    int blocks;  // of `foreground`
    Range ranges[PLACE_BLOCKS];
    int core_left[LARGEST_SIDE], core_right[LARGEST_SIDE];  // of the largest component; core_right is 0 in other rows
    int left[LARGEST_SIDE], right[LARGEST_SIDE];            // of the breast; right is 0 in other rows
    Count counted[LARGEST_SIDE];                            // of the rows of the crop
    int before[LARGEST_SIDE + 1];                           // INNER in the rows of the crop above
};
constexpr int PLACING_BYTES = (sizeof(Placing) + 15) / 16 * 16;
static_assert(PLACING_BYTES + 74LL * LARGEST_WORDS <= PLACE_BYTES, "PLACE_BYTES is too small");

// A run of a row of the core is named by half of the index of its first pixel. Its entry is ROOT plus the size of the
// component, or the entry of another run of the component, which has a smaller index.
constexpr unsigned int ROOT = 0x80000000u;

struct Whole {
    const Header* area;
    Placing* placing;
    unsigned int *mask, *core;  // [rows][words]
    unsigned short* starts;     // [rows][words]: first column of the run that reaches up to the first column of the word
    unsigned int* runs;         // [rows][words][16]
    Facts* facts;
    int rows, columns, words, mirrored;

    __device__ const char* pixels() const { return reinterpret_cast<const char*>(area) + HEADER_BYTES; }
    // Column of the source image of a column of the upright image, and vice versa.
    __device__ int turned(int column) const { return mirrored ? columns - 1 - column : column; }
};

__device__ inline Whole whole_of(const char* staging, long long area_bytes, char* placing, char* samples) {
    const Header& area = header_of(staging, area_bytes);
    char* memory = placing + static_cast<long long>(blockIdx.z) * PLACE_BYTES;
    Whole whole;
    whole.area = &area;
    whole.placing = reinterpret_cast<Placing*>(memory);
    whole.mask = reinterpret_cast<unsigned int*>(memory + PLACING_BYTES);
    whole.core = whole.mask + LARGEST_WORDS;
    whole.runs = whole.core + LARGEST_WORDS;
    whole.starts = reinterpret_cast<unsigned short*>(whole.runs + 16LL * LARGEST_WORDS);
    whole.facts = reinterpret_cast<Facts*>(samples + static_cast<long long>(blockIdx.z) * SAMPLES_BYTES);
    whole.rows = area.rows;
    whole.columns = area.columns;
    whole.words = (area.columns + 31) / 32;
    whole.mirrored = area.mirrored;
    return whole;
}

// The lowest `count` bits of a word; all or none for a count beyond 0..32.
__device__ inline unsigned int low_bits(int count) {
    return count >= 32 ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1;
}

constexpr unsigned int ALL_LANES = 0xffffffffu;
constexpr int WARPS = PLACE_THREADS / 32;
