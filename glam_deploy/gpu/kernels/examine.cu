// Checks that images written by other libraries are finite, because an engine's ReLU may map NaN to 0.
// Reference in numpy: numpy.isfinite.
//
// Memory traffic per image: 22.6 MB read.

// Grid: (blocks of EXAMINE_ROWS rows, 1, images). Each thread reads 4 columns of every row of the block.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
examine(const float4* images, unsigned int* flags) {
    static_assert(INPUT_ROWS % EXAMINE_ROWS == 0 && INPUT_COLUMNS == 4 * ROW_THREADS, "remaining pixels");
    const int first = blockIdx.z * INPUT_ROWS + blockIdx.x * EXAMINE_ROWS;
    const float4* rows = images + first * ROW_THREADS;
    bool finite = true;
#pragma unroll
    for (int i = 0; i < EXAMINE_ROWS; ++i) {
        const float4 four = rows[i * ROW_THREADS + threadIdx.x];
        finite = finite & isfinite(four.x) & isfinite(four.y) & isfinite(four.z) & isfinite(four.w);  // no branches
    }
    if (__syncthreads_or(!finite) && threadIdx.x == 0) atomicOr(&flags[blockIdx.z], NOT_FINITE_IMAGE);
}
