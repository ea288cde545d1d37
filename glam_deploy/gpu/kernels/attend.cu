// Attention over the used patches and fusion with the global module: the remaining scores of an image.
// Reference in numpy: engines/fusion_head.py.
//
// Memory traffic per image: the weights (531 KB), and 2 KB per patch and unit of the attention from L1.

constexpr int ATTEND_WARPS = ATTEND_THREADS / 32;
constexpr int Z_ALL = Z_GLOBAL + Z_PATCH, UNITS_PER_LANE = ATTENTION_WIDTH / 32;
static_assert(Z_PATCH % 128 == 0 && Z_ALL % 32 == 0 && ATTENTION_WIDTH % 32 == 0, "remaining values of a warp");
static_assert(ATTEND_WARPS >= MAX_PATCHES && ATTEND_WARPS >= 2 * CLASSES, "a warp for each patch and each output");

__device__ inline float logistic(float value) { return 1 / (1 + expf(-value)); }

// A score from its logit; NaN if the logit is not finite, because its sigmoid is a plausible score.
__device__ inline float score_of(float logit) {
    return isfinite(logit) ? logistic(logit) : __uint_as_float(0x7fffffffu);
}

// Sum over the lanes of a warp, in a fixed order; in every lane.
__device__ inline float warp_total(float value) {
    for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

__device__ inline float dot4(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }

// Product of a row of weights and a vector of SIZE values, by a warp; in every lane.
template <int SIZE>
__device__ float row_product(const float* row, const float* vector) {
    float sum = 0;
    for (int i = threadIdx.x % 32; i < SIZE; i += 32) sum += row[i] * vector[i];
    return warp_total(sum);
}

// Gated activations of one unit for all used patches, times the unit's weight, by a warp.
__device__ inline void activate(int unit, unsigned int used, const float* z_k, const float* weights,
                                float (*gated)[ATTENTION_WIDTH]) {
    const int lane = threadIdx.x % 32;
    const float4* v_row = reinterpret_cast<const float4*>(weights + MIL_ATTN_V_WEIGHT + unit * Z_PATCH);
    const float4* u_row = reinterpret_cast<const float4*>(weights + MIL_ATTN_U_WEIGHT + unit * Z_PATCH);
    float v[MAX_PATCHES] = {}, u[MAX_PATCHES] = {};
#pragma unroll
    for (int i = 0; i < Z_PATCH / 4; i += 32) {
        const float4 v_four = v_row[i + lane], u_four = u_row[i + lane];
#pragma unroll
        for (int slot = 0; slot < MAX_PATCHES; ++slot) {
            if (!(used >> slot & 1)) continue;
            const float4 z = reinterpret_cast<const float4*>(z_k + slot * Z_PATCH)[i + lane];
            v[slot] += dot4(v_four, z);
            u[slot] += dot4(u_four, z);
        }
    }
#pragma unroll
    for (int slot = 0; slot < MAX_PATCHES; ++slot) {
        if (!(used >> slot & 1)) continue;
        const float tangent = tanhf(warp_total(v[slot])), gate = logistic(warp_total(u[slot]));
        if (lane == 0) gated[slot][unit] = tangent * gate * weights[MIL_ATTN_W_WEIGHT + unit];
    }
}

// Softmax over the used patches: the share of one slot, 0 for an unused one.
__device__ inline float share_of(int slot, unsigned int used, const float* logits) {
    float most = logits[0];  // slot 0 is used in every image
    for (int i = 1; i < MAX_PATCHES; ++i)
        if (used >> i & 1) most = max(most, logits[i]);
    float sum = 0;
    for (int i = 0; i < MAX_PATCHES; ++i)
        if (used >> i & 1) sum += expf(logits[i] - most);
    return used >> slot & 1 ? expf(logits[slot] - most) / sum : 0;
}

// Writes z_g and the patches' mean representation to `z`; returns whether all values of the calling thread are finite.
__device__ inline bool gather(const float* z_g, const float* z_k, unsigned int used, const float* shares, float* z) {
    bool finite = true;
    for (int i = threadIdx.x; i < Z_ALL; i += ATTEND_THREADS) {
        float value = i < Z_GLOBAL ? z_g[i] : 0;
        finite = finite & isfinite(value);
        for (int slot = 0; i >= Z_GLOBAL && slot < MAX_PATCHES; ++slot) {
            if (!(used >> slot & 1)) continue;
            const float one = z_k[slot * Z_PATCH + i - Z_GLOBAL];
            finite = finite & isfinite(one);
            value += shares[slot] * one;
        }
        z[i] = value;
    }
    return finite;
}

// Grid: (1, 1, images). `pooled`: predictions of the patches, [images, MAX_PATCHES, CLASSES]; not read if the network
// has a classifier of the mean representation. All scores and the used slots' attention are NaN if z_g or a used z_k is
// not finite, because a sum, a tangent or a sigmoid can hide it.
extern "C" __global__ void __launch_bounds__(ATTEND_THREADS)
attend(const float* pooled, const long long* all_locations, const float* all_z_g, const float* all_z_k,
       const float* weights, float* y_local, float* y_fusion, float* attention) {
    __shared__ float gated[MAX_PATCHES][ATTENTION_WIDTH], logits[MAX_PATCHES], shares[MAX_PATCHES], z[Z_ALL];
    const int image = blockIdx.z, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const float *z_g = all_z_g + image * Z_GLOBAL, *z_k = all_z_k + image * MAX_PATCHES * Z_PATCH;
    unsigned int used = 0;
    for (int slot = 0; slot < MAX_PATCHES; ++slot)
        used |= (all_locations[(image * MAX_PATCHES + slot) * 2] >= 0 ? 1u : 0u) << slot;
    for (int unit = warp; unit < ATTENTION_WIDTH; unit += ATTEND_WARPS) activate(unit, used, z_k, weights, gated);
    __syncthreads();
    if (warp < MAX_PATCHES && used >> warp & 1) {
        float sum = 0;
        for (int i = 0; i < UNITS_PER_LANE; ++i) sum += gated[warp][i * 32 + lane];
        sum = warp_total(sum);
        if (lane == 0) logits[warp] = sum;
    }
    __syncthreads();
    if (threadIdx.x < MAX_PATCHES) shares[threadIdx.x] = share_of(threadIdx.x, used, logits);
    __syncthreads();
    const bool finite = !__syncthreads_or(!gather(z_g, z_k, used, shares, z));
    const float spoil = finite ? 0 : __uint_as_float(0x7fffffffu);
    if (threadIdx.x < MAX_PATCHES)
        attention[image * MAX_PATCHES + threadIdx.x] = used >> threadIdx.x & 1 ? shares[threadIdx.x] + spoil : 0;
    const int label = warp % CLASSES, output = image * CLASSES + label;
    if (warp < CLASSES) {
        const float logit = row_product<Z_ALL>(weights + FUSION_DNN_WEIGHT + label * Z_ALL, z);
        if (lane == 0) y_fusion[output] = score_of(logit + weights[FUSION_DNN_BIAS + label]) + spoil;
    } else if (warp < 2 * CLASSES) {
        float local = 0;
        if constexpr (CLASSIFIER_LINEAR_WEIGHT >= 0)
            local = score_of(row_product<Z_PATCH>(weights + CLASSIFIER_LINEAR_WEIGHT + label * Z_PATCH, z + Z_GLOBAL));
        else
            for (int slot = 0; slot < MAX_PATCHES; ++slot)
                if (used >> slot & 1) local += shares[slot] * pooled[(image * MAX_PATCHES + slot) * CLASSES + label];
        if (lane == 0) y_local[output] = local + spoil;
    }
}
