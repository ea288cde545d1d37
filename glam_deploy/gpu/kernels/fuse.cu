// Computes the fused map at full resolution, and checks that the maps are finite.
// Reference in numpy: patches/host.py, fuse and enlarge.
//
// Memory traffic per image: 45.2 MB written; 177 KB read, and 131 KB per patch.

// Grid: (rows of the global map, classes, images). Each thread computes 4 columns of the CELL rows of one row of the
// map: CELL / PATCH_CELL squares of PATCH_CELL x PATCH_CELL pixels. Every cell of a patch's map is read by exactly one
// thread, also if a later patch covers it, so that every value is checked.
extern "C" __global__ void __launch_bounds__(ROW_THREADS)
fuse(const float* saliency_global, const float* saliency_patches, const long long* all_locations, float4* saliency,
     unsigned int* flags) {
    static_assert(INPUT_COLUMNS == 4 * ROW_THREADS && PATCH_CELL == 4, "the columns of a thread are one square wide");
    constexpr int SQUARES = CELL / PATCH_CELL;
    const int label = blockIdx.y, image = blockIdx.z, plane = image * CLASSES + label;
    const int first = blockIdx.x * SQUARES, column = threadIdx.x;  // in squares
    const float global = saliency_global[plane * MAP_CELLS + blockIdx.x * MAP_COLUMNS + column / SQUARES];
    const long long* locations = all_locations + image * MAX_PATCHES * 2;
    float local[SQUARES] = {};
    bool finite = true;
    for (int slot = 0; slot < MAX_PATCHES; ++slot) {
        if (locations[2 * slot] < 0) continue;
        const int down = first - static_cast<int>(locations[2 * slot]) / PATCH_CELL;
        const int across = column - static_cast<int>(locations[2 * slot + 1]) / PATCH_CELL;
        if (across < 0 || across >= PATCH_MAP) continue;
        const int map = (image * MAX_PATCHES + slot) * CLASSES + label;
        const float* patch = saliency_patches + map * PATCH_MAP * PATCH_MAP;
#pragma unroll
        for (int i = 0; i < SQUARES; ++i) {
            if (down + i < 0 || down + i >= PATCH_MAP) continue;
            local[i] = patch[(down + i) * PATCH_MAP + across];
            finite = finite && isfinite(local[i]);
        }
    }
    float4* out = saliency + (static_cast<long long>(plane) * INPUT_ROWS + blockIdx.x * CELL) * ROW_THREADS + column;
#pragma unroll
    for (int i = 0; i < SQUARES; ++i) {
        const float mean = (local[i] + global) / 2;
#pragma unroll
        for (int row = 0; row < PATCH_CELL; ++row)
            out[(i * PATCH_CELL + row) * ROW_THREADS] = {mean, mean, mean, mean};
    }
    const bool bad_global = __syncthreads_or(!isfinite(global)), bad_local = __syncthreads_or(!finite);
    if (threadIdx.x == 0 && (bad_global || bad_local))
        atomicOr(&flags[image], (bad_global ? NOT_FINITE_GLOBAL : 0) | (bad_local ? NOT_FINITE_LOCAL : 0));
}
