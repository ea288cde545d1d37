// Copies the selected patches from the standardized images. Reference in numpy: patches/host.py, crop.
//
// Memory traffic per patch: 1 MiB read, 1 MiB written.

// Grid: (blocks of CROP_ROWS rows, patches, images). Each thread copies 4 columns of one row. Patches start at multiples
// of 16 pixels, so every access is 16 bytes with 16-byte alignment.
extern "C" __global__ void __launch_bounds__(CROP_ROWS * CROP_THREADS)
crop(const float4* images, const long long* locations, float4* patches) {
    static_assert(PATCH % CROP_ROWS == 0 && PATCH == 4 * CROP_THREADS && CELL % 4 == 0, "remaining pixels");
    const int patch = blockIdx.y, image = blockIdx.z;
    const long long* location = locations + (image * MAX_PATCHES + patch) * 2;
    const int row = blockIdx.x * CROP_ROWS + threadIdx.y;
    const long long from = image * (PIXELS / 4LL) + ((location[0] + row) * INPUT_COLUMNS + location[1]) / 4;
    const long long to = ((image * gridDim.y + patch) * static_cast<long long>(PATCH) + row) * CROP_THREADS;
    patches[to + threadIdx.x] = images[from + threadIdx.x];
}
