// Computes the map at full resolution of a network without patch maps, and checks that the global map is finite.
// Reference in numpy: runtime/patching.py, enlarge.
//
// Memory traffic per image: 45.2 MB written; the map (11 KB in GMIC) is read.

// Grid: (blocks of EXAMINE_ROWS rows of the image, classes, images). Each thread writes 4 columns of every row of the
// block, which are all in one cell of the map.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
enlarge(const float* saliency_global, float4* saliency, unsigned int* flags) {
    static_assert(INPUT_COLUMNS == 4 * ROW_THREADS && CELL % 4 == 0, "a thread has columns of two cells");
    static_assert(CELL % EXAMINE_ROWS == 0, "a block has rows of two cells");
    const int plane = blockIdx.z * CLASSES + blockIdx.y, first = blockIdx.x * EXAMINE_ROWS;
    const int cell = first / CELL * MAP_COLUMNS + 4 * threadIdx.x / CELL;
    const float value = saliency_global[plane * MAP_CELLS + cell];
    float4* rows = saliency + (static_cast<long long>(plane) * INPUT_ROWS + first) * ROW_THREADS;
#pragma unroll
    for (int i = 0; i < EXAMINE_ROWS; ++i) rows[i * ROW_THREADS + threadIdx.x] = {value, value, value, value};
    if (__syncthreads_or(!isfinite(value)) && threadIdx.x == 0) atomicOr(&flags[blockIdx.z], NOT_FINITE_GLOBAL);
}
