// Samples of the image for the checks on the host. Reference in numpy: preprocess/surroundings.py, damage.py,
// diagnosis.py.
//
// Memory traffic of a 3328 x 2560 uint16 image with a breast of 2900 x 1600: 1.2 million samples, 2.4 MB written, about
// 30 MB read in sectors of 32 bytes, from L2 if the image fits.

// The pixel (row, column) of the upright image.
template <class Pixel>
__device__ Pixel upright(const Whole& whole, int row, int column) {
    const void* line = row_of<Pixel>(whole.pixels(), whole.columns, row);
    return static_cast<const Pixel*>(line)[whole.turned(column)];
}

// Column of value `j` of a row of the outline: from OUTLINE_SEARCH pixels outside of the breast inwards.
__device__ inline int outline_column(const Whole& whole, int row, int j) {
    const Placing& placing = *whole.placing;
    const int right = whole.mirrored ? whole.columns - placing.left[row] : placing.right[row];
    return right + OUTLINE_SEARCH - j;
}

template <class Pixel>
__device__ void copy_samples(const Whole& whole) {
    const int first = blockIdx.x * PLACE_THREADS + threadIdx.x, stride = gridDim.x * PLACE_THREADS;
#pragma unroll 1
    for (int index = 0; index < SAMPLES; ++index) {
        const Sample sample = whole.facts->samples[index];
        Pixel* to = reinterpret_cast<Pixel*>(reinterpret_cast<char*>(whole.facts) + sample.offset);
        for (int at = first; at < sample.rows * sample.columns; at += stride) {
            const int i = at / sample.columns, j = at % sample.columns;
            const int row = sample.row + i * sample.row_down + j * sample.row_across;
            int column = sample.column + i * sample.column_down + j * sample.column_across;
            if (index == SAMPLE_OUTLINE) column = max(0, outline_column(whole, row, j));
            to[at] = column < whole.columns ? upright<Pixel>(whole, row, column) : Pixel(0);
        }
    }
}

// Grid: (any number of blocks, 1, images).
extern "C" __global__ void __launch_bounds__(PLACE_THREADS)
gather(const char* staging, long long area_bytes, char*, char* all_placing, char* samples) {
    const Whole whole = whole_of(staging, area_bytes, all_placing, samples);
    if (!whole.area->whole || whole.facts->status != STATUS_OK) return;
    const Facts& facts = *whole.facts;
    int* lefts = reinterpret_cast<int*>(reinterpret_cast<char*>(whole.facts) + facts.left_offset);
    int* rights = reinterpret_cast<int*>(reinterpret_cast<char*>(whole.facts) + facts.right_offset);
    for (int i = blockIdx.x * PLACE_THREADS + threadIdx.x; i < facts.bottom - facts.top; i += gridDim.x * PLACE_THREADS) {
        lefts[i] = whole.placing->left[facts.top + i];
        rights[i] = whole.placing->right[facts.top + i];
    }
    if (whole.area->kind == PIXEL_UINT16)
        copy_samples<unsigned short>(whole);
    else if (whole.area->kind == PIXEL_UINT8)
        copy_samples<unsigned char>(whole);
    else
        copy_samples<float>(whole);
}
