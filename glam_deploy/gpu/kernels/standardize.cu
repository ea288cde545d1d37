// Computes mean, deviation and the standardized image of uploaded views.
// Reference in numpy: preprocess/frame.py, standardize.py.
//
// Memory traffic of one uint16 image that fills the window: `moments` reads 11.3 MB; `standardize` reads them again (from
// L2 if they fit) and writes 22.6 MB. float32 images: twice as much read.

// Moments of the MOMENTS_ROWS rows of a block, written by thread 0. Each thread reads the groups of 16 bytes with index
// threadIdx.x + i * MOMENTS_THREADS of each row, from the group with the first column of the window.
template <class Pixel, class Sum>
__device__ void add_pixels(const View& view, Moments<Sum>* of_block) {
    constexpr int COUNT = Sixteen<Pixel>::COUNT;
    Sum sum = 0, squares = 0;
    const int end = view.left + view.columns;
    for (int group = view.left / COUNT + threadIdx.x; group * COUNT < end; group += MOMENTS_THREADS) {
        Sixteen<Pixel> pixels[MOMENTS_ROWS];  // all loads are issued before the first value is used
#pragma unroll
        for (int i = 0; i < MOMENTS_ROWS; ++i) {
            const int row = blockIdx.x * MOMENTS_ROWS + i;
            pixels[i] = row < view.rows ? row_of<Pixel>(view.pixels, view.pitch, view.top + row)[group] : Sixteen<Pixel>{};
        }
#pragma unroll
        for (int i = 0; i < MOMENTS_ROWS; ++i)
#pragma unroll
            for (int j = 0; j < COUNT; ++j) {
                const int column = group * COUNT + j;
                const Sum pixel = column >= view.left && column < end ? pixels[i].at[j] : 0;
                sum += pixel;
                squares += pixel * pixel;
            }
    }
    sum = total<MOMENTS_THREADS>(sum);
    squares = total<MOMENTS_THREADS>(squares);
    if (threadIdx.x == 0) of_block[blockIdx.x] = {sum, squares};
}

template <class Sum>
__device__ Moments<Sum> add_blocks(const Moments<Sum>* of_block) {
    Moments<Sum> all = {0, 0};
    for (int block = threadIdx.x; block < MOMENTS_BLOCKS; block += MOMENTS_THREADS) {
        all.sum += __ldcg(&of_block[block].sum);  // written by other blocks: bypass L1
        all.squares += __ldcg(&of_block[block].squares);
    }
    return {total<MOMENTS_THREADS>(all.sum), total<MOMENTS_THREADS>(all.squares)};
}

// Exact up to the final rounding: the variance is (PIXELS * squares - sum * sum) / PIXELS^2, with a 128-bit numerator.
__device__ inline double deviation_of(Moments<Count> all) {
    const Count low = PIXELS * all.squares, subtracted = all.sum * all.sum;
    const Count high = __umul64hi(PIXELS, all.squares) - __umul64hi(all.sum, all.sum) - (low < subtracted);
    return sqrt(static_cast<double>(high) * 18446744073709551616.0 + static_cast<double>(low - subtracted)) / PIXELS;
}

__device__ inline double deviation_of(Moments<double> all) {
    const double mean = all.sum / PIXELS;
    return sqrt(fmax(all.squares / PIXELS - mean * mean, 0.0));
}

template <class Sum>
__device__ void finish(Moments<Sum> all, Scratch& scratch) {
    if (threadIdx.x > 0) return;
    scratch.mean = static_cast<float>(static_cast<double>(all.sum) / PIXELS);
    scratch.divisor = static_cast<float>(fmax(deviation_of(all), 1e-5));  // lower limit of the published code
    scratch.moments_done = 0;
}

// Grid: (blocks of MOMENTS_ROWS rows, 1, images). The block that finishes last adds the moments of all blocks in the
// order of the block index, so the result does not depend on which block finishes last.
extern "C" __global__ void __launch_bounds__(MOMENTS_THREADS)
moments(const char* staging, long long area_bytes, char* all_scratch) {
    static_assert(INPUT_ROWS % MOMENTS_ROWS == 0, "remaining rows");
    __shared__ bool is_last;
    Scratch& scratch = scratch_of(all_scratch, blockIdx.z);
    const View view = view_of(staging, area_bytes, scratch);
    if (view.kind == PIXEL_UINT16)
        add_pixels<unsigned short>(view, scratch.whole);
    else if (view.kind == PIXEL_UINT8)
        add_pixels<unsigned char>(view, scratch.whole);
    else
        add_pixels<float>(view, scratch.real);
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(&scratch.moments_done, 1u) == MOMENTS_BLOCKS - 1;
        __threadfence();
    }
    __syncthreads();
    if (!is_last) return;
    if (view.kind == PIXEL_FLOAT32)
        finish(add_blocks(scratch.real), scratch);
    else
        finish(add_blocks(scratch.whole), scratch);
}

// The pixel at a position of the network frame, 0 outside the view. Mirrored or shifted rows are not 16-byte aligned in
// the source, so pixels are loaded one by one; adjacent threads of a warp share cache lines.
template <class Pixel>
__device__ float pixel_at(const View& view, int row, int column) {
    row -= view.row;
    column -= view.column;
    if (row < 0 || row >= view.rows || column < 0 || column >= view.columns) return 0;
    if (view.mirrored) column = view.columns - 1 - column;
    return reinterpret_cast<const Pixel*>(row_of<Pixel>(view.pixels, view.pitch, view.top + row))[view.left + column];
}

// Each thread writes 4 columns of each of the STANDARDIZE_ROWS rows of the block.
template <class Pixel>
__device__ void write_rows(const View& view, float mean, float divisor, float4* __restrict__ image) {
    const int column = 4 * threadIdx.x;
#pragma unroll
    for (int i = 0; i < STANDARDIZE_ROWS; ++i) {
        const int row = blockIdx.x * STANDARDIZE_ROWS + i;
        image[(row * INPUT_COLUMNS + column) / 4] = {(pixel_at<Pixel>(view, row, column) - mean) / divisor,
                                                     (pixel_at<Pixel>(view, row, column + 1) - mean) / divisor,
                                                     (pixel_at<Pixel>(view, row, column + 2) - mean) / divisor,
                                                     (pixel_at<Pixel>(view, row, column + 3) - mean) / divisor};
    }
}

// Grid: (blocks of STANDARDIZE_ROWS rows, 1, images). Launched after `moments`.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
standardize(const char* __restrict__ staging, long long area_bytes, char* all_scratch, float4* __restrict__ images) {
    static_assert(INPUT_ROWS % STANDARDIZE_ROWS == 0 && INPUT_COLUMNS == 4 * ROW_THREADS, "remaining pixels");
    const Scratch& scratch = scratch_of(all_scratch, blockIdx.z);
    const View view = view_of(staging, area_bytes, scratch);
    float4* image = images + static_cast<long long>(blockIdx.z) * (PIXELS / 4);
    if (view.kind == PIXEL_UINT16)
        write_rows<unsigned short>(view, scratch.mean, scratch.divisor, image);
    else if (view.kind == PIXEL_UINT8)
        write_rows<unsigned char>(view, scratch.mean, scratch.divisor, image);
    else
        write_rows<float>(view, scratch.mean, scratch.divisor, image);
}
