// The core: pixels that remain after EROSIONS erosions of the mask with the cross of 4 neighbours; the outside of the
// image is background. Reference in numpy: preprocess/foreground.py, _core.
//
// EROSIONS erosions with the cross are one erosion with the diamond of this radius. A diamond of radius r, moved by s <= r
// up, down, left and right, covers the diamond of radius r + s, so radii 1, 2, 4, 8, ... need one pass each, 32 pixels in
// a word at a time.
//
// Memory traffic of a 3328 x 2560 image: 1.1 MB written; each block reads the mask around its tile, 5.5 MB in all, from L2.

constexpr int ERODE_HALO = (EROSIONS + 31) / 32;  // in words
constexpr int ERODE_WIDE = ERODE_WORDS + 2 * ERODE_HALO, ERODE_TALL = ERODE_ROWS + 2 * EROSIONS;

using Tile = unsigned int[ERODE_TALL][ERODE_WIDE];

// Next step of a diamond of radius `radius` towards EROSIONS.
__device__ inline int step_of(int radius) { return min(max(radius, 1), EROSIONS - radius); }

// A word of a tile; outside of it any value would do, because the halo is as wide as the diamond.
__device__ inline unsigned int word_at(const Tile& tile, int row, int word) {
    return row >= 0 && row < ERODE_TALL && word >= 0 && word < ERODE_WIDE ? tile[row][word] : 0;
}

// A word of the intersection of the tile with itself, moved by `step` in the four directions.
__device__ inline unsigned int moved(const Tile& tile, int row, int word, int step) {
    const int words = step / 32, bits = step % 32;
    const unsigned int up = word_at(tile, row + step, word), down = word_at(tile, row - step, word);
    const unsigned int right =
        __funnelshift_l(word_at(tile, row, word - words - 1), word_at(tile, row, word - words), bits);
    const unsigned int left =
        __funnelshift_r(word_at(tile, row, word + words), word_at(tile, row, word + words + 1), bits);
    return tile[row][word] & up & down & right & left;
}

// Grid: (any number of blocks, 1, images). Each block erodes tiles of ERODE_ROWS rows and ERODE_WORDS words.
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
erode(const char* staging, long long area_bytes, char*, char* placing, char* samples) {
    __shared__ Tile tiles[2];
    const Whole whole = whole_of(staging, area_bytes, placing, samples);
    if (!whole.area->whole) return;
    const int across = (whole.words + ERODE_WORDS - 1) / ERODE_WORDS, down = (whole.rows + ERODE_ROWS - 1) / ERODE_ROWS;
    for (int at = blockIdx.x; at < across * down; at += gridDim.x) {
        const int top = at / across * ERODE_ROWS - EROSIONS, left = at % across * ERODE_WORDS - ERODE_HALO;
        for (int i = threadIdx.x; i < ERODE_TALL * ERODE_WIDE; i += PLACE_THREADS) {
            const int row = top + i / ERODE_WIDE, word = left + i % ERODE_WIDE;
            const bool inside = row >= 0 && row < whole.rows && word >= 0 && word < whole.words;
            tiles[0][i / ERODE_WIDE][i % ERODE_WIDE] = inside ? whole.mask[row * whole.words + word] : 0;
        }
        int now = 0;
#pragma unroll 1
        for (int radius = 0; radius < EROSIONS; radius += step_of(radius), now = 1 - now) {
            __syncthreads();
            for (int i = threadIdx.x; i < ERODE_TALL * ERODE_WIDE; i += PLACE_THREADS)
                tiles[1 - now][i / ERODE_WIDE][i % ERODE_WIDE] =
                    moved(tiles[now], i / ERODE_WIDE, i % ERODE_WIDE, step_of(radius));
        }
        __syncthreads();
        for (int i = threadIdx.x; i < ERODE_ROWS * ERODE_WORDS; i += PLACE_THREADS) {
            const int row = EROSIONS + i / ERODE_WORDS, word = ERODE_HALO + i % ERODE_WORDS;
            if (top + row < whole.rows && left + word < whole.words)
                whole.core[(top + row) * whole.words + left + word] = tiles[now][row][word];
        }
        __syncthreads();
    }
}
